"""What a transaction has written of symbol_averages, noted beside it in average_batches.

Rows that are new lie close together by their ids, but for late ones and those of another backlog. So they are
noted by ranges without wide gaps, few as they are, and what stands alone is listed. In a range lie rows of
other writers, too: a row's tx tells whose it is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from uuid import UUID

import numpy as np
from psycopg import Cursor

from consumers.averages.columns import HIGH, NO_POINTS, Integers, id_of

# Who reads a range goes through all that was stored in its time: a gap of more than so many ms ends it.
MOST_GAP_MS = 10_000
# Fewer are listed.
LEAST_IN_RANGE = 8
IDS_IN_A_ROW = 1_000
# An id's first half has its ms, and so many bits of other things.
_BITS_AFTER_MS = 16

# A dump that was restored into another cluster may bring numbers that are still to come there.
_INSERT = """
INSERT INTO average_batches (number, first_id, last_id, rows, added, changed)
VALUES (%s, %s, %s, %s, %s::uuid[], %s::uuid[])
ON CONFLICT (tx, number) DO UPDATE SET
    (first_id, last_id, rows, added, changed, written_at) = (
        excluded.first_id, excluded.last_id, excluded.rows, excluded.added, excluded.changed,
        excluded.written_at
    )
"""


@dataclass(frozen=True, slots=True)
class Written:
    """Rows that were written.

    copied   new ones, as points
    added    ids of further new ones
    changed  ids of rows that were stored before
    """

    copied: Integers = field(default_factory=lambda: NO_POINTS)
    added: Sequence[UUID] = ()
    changed: Sequence[UUID] = ()


@dataclass(frozen=True, slots=True)
class _Range:
    first: UUID
    last: UUID
    rows: int


@dataclass(frozen=True, slots=True)
class _Listed:
    added: list[UUID]
    changed: list[UUID]


def note_written(cursor: Cursor, *written: Written) -> None:
    """Note what the transaction of the cursor has written; to be called once in it."""
    ranges, alone = _split(np.concatenate([each.copied for each in written]))
    added = list(chain(alone, *(each.added for each in written)))
    # A row that was changed twice is one.
    changed = list(dict.fromkeys(chain.from_iterable(each.changed for each in written)))
    # One row, but for backlogs and rebuilds.
    for number, row in enumerate(zip_longest(ranges, _lists(added, changed))):
        cursor.execute(_INSERT, _values(number, *row))


def _values(number: int, span: _Range | None, listed: _Listed | None) -> tuple[object, ...]:
    added, changed = (listed.added, listed.changed) if listed else ([], [])
    rows = len(added) + len(changed)
    if span is None:
        return number, None, None, rows, added, changed
    return number, span.first, span.last, rows + span.rows, added, changed


def _split(points: Integers) -> tuple[list[_Range], list[UUID]]:
    """Return the ranges in which points lie close together, and the ids of the others."""
    ranges, alone = list[_Range](), list[UUID]()
    points = points[np.argsort(points[:, HIGH], kind="stable")]
    gaps = np.diff(points[:, HIGH] >> _BITS_AFTER_MS)
    for part in np.split(points, np.flatnonzero(gaps > MOST_GAP_MS) + 1):
        if len(part) < LEAST_IN_RANGE:
            alone += map(id_of, part)
        else:
            first, last = id_of(part[0]), id_of(part[-1])
            # Those of one first half are not sorted by the other.
            ranges.append(
                _Range(UUID(int=first.int >> 64 << 64), UUID(int=last.int | (1 << 64) - 1), len(part))
            )
    return ranges, alone


def _lists(added: Sequence[UUID], changed: Sequence[UUID]) -> Iterator[_Listed]:
    for begin in range(0, len(added) + len(changed), IDS_IN_A_ROW):
        end = begin + IDS_IN_A_ROW
        of_changed = slice(max(begin - len(added), 0), max(end - len(added), 0))
        yield _Listed(list(added[begin:end]), list(changed[of_changed]))
