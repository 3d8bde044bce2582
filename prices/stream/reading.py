"""What was written of symbol_averages after a position, in the order of the transactions that wrote it.

A page is of transactions that had all ended when it was read: below `pg_snapshot_xmin`. The rows are looked
up by what the transactions have noted (consumers/averages/batches.py), and a row counts where its tx is that
of the note: any other one has changed it again since, and comes with that one.
"""

import hashlib
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection

from prices.clock import Reading
from prices.history.columns import Column, Kind, json_line
from prices.history.tables import AVERAGES
from prices.stream.events import StoredRow, StreamEvent, StreamEventKind
from prices.stream.positions import Position

# Where a page is full, the next one follows at once. One transaction has up to 20,000.
ROWS_AT_ONCE = 2_000
# More than one transaction has.
_NOTES_AT_ONCE = 2_000
# Notes whose ranges are closer together are read as one range.
_NEAR = timedelta(seconds=10) // timedelta(milliseconds=1) << 80
_VERSION = Column("version", "row.tx", Kind.COUNT)
ROW_LINE = json_line([*AVERAGES.columns, _VERSION], prices_as_text=False)

_HORIZON = "(pg_snapshot_xmin(pg_current_snapshot())::text)::bigint"
# A transaction's notes stay together: its rows come in the order of their ids.
_NOTES = f"""
SELECT tx, first_id, last_id, added, changed, is_last FROM (
    SELECT *, sum(rows) OVER (ORDER BY tx) - sum(rows) OVER (PARTITION BY tx) AS before,
           count(*) OVER () = %(most)s AND tx = max(tx) OVER () AS is_cut,
           count(*) OVER () < %(most)s AND tx = max(tx) OVER () AS is_last
    FROM (
        SELECT * FROM average_batches WHERE tx >= %(first)s AND tx < {_HORIZON}
        ORDER BY tx, number LIMIT %(most)s
    ) AS next
) AS counted WHERE before < %(rows)s AND NOT is_cut ORDER BY tx, number
"""  # noqa: S608 - no outside text
# Of a point that is no longer there only the average's own time is known.
_ROWS = f"""
SELECT row.tx, row.event_id, row.symbol, row.provider, row.observed_at, point.precision, point.received_at,
       {ROW_LINE.replace("%", "%%")}
FROM symbol_averages AS row
LEFT JOIN price_points AS point ON point.id = row.event_id AND point.id BETWEEN %(lowest)s AND %(highest)s
WHERE row.event_id BETWEEN %(lowest)s AND %(highest)s AND row.tx = ANY(%(transactions)s)
  AND (%(ids)s::uuid[] IS NULL OR row.event_id = ANY(%(ids)s::uuid[]))
  AND (%(symbols)s::text[] IS NULL OR row.symbol = ANY(%(symbols)s::text[]))
"""  # noqa: S608 - no outside text
_NEWEST = f"SELECT max(tx) FROM average_batches WHERE tx < {_HORIZON}"  # noqa: S608 - no outside text
_BOUNDS = "SELECT min(tx), max(tx) FROM average_batches"
_CLOCK_AND_WAITING = f"""
SELECT clock_timestamp(), (
    SELECT written_at FROM average_batches
    WHERE tx >= {_HORIZON} AND tx < (pg_snapshot_xmax(pg_current_snapshot())::text)::bigint
    ORDER BY tx LIMIT 1
)
"""  # noqa: S608 - no outside text
# A server that is promoted, or restored from its log, has another timeline: numbers of transactions of before
# may come again there.
_HISTORY = """
SELECT system_identifier || '-' || oid || '-' || timeline_id
FROM pg_control_system(), pg_database, pg_split_walfile_name(pg_walfile_name(pg_current_wal_lsn()))
WHERE datname = current_database()
"""


class _Note(NamedTuple):
    tx: int
    first_id: UUID | None
    last_id: UUID | None
    added: Sequence[UUID]
    changed: Sequence[UUID]
    is_last: bool


class _Range(NamedTuple):
    lowest: UUID
    highest: UUID


@dataclass(frozen=True, slots=True)
class Page:
    """Events after a position, in order, up to `end`; `is_last` where there were no more."""

    events: Sequence[StreamEvent]
    end: Position
    is_last: bool


def read_page(after: Position, *, symbols: Collection[str] | None) -> Page:
    """Return the next events of these symbols; None for all. Raises what the database raises."""
    notes = _read_notes(after)
    if not notes:
        return Page([], after, is_last=True)
    found = _read_rows(notes, symbols) if symbols is None or symbols else {}
    changed = {(note.tx, event_id) for note in notes for event_id in note.changed}
    events = [
        StreamEvent(StreamEventKind.CORRECTION if key in changed else StreamEventKind.PRICE, key, found[key])
        for key in sorted(found)
        if key > after
    ]
    return Page(events, Position(notes[-1].tx), is_last=notes[-1].is_last)


def newest_position() -> Position:
    """Return the position after all that can be read now."""
    return Position(_one(_NEWEST)[0] or 0)


def is_known(position: Position) -> bool:
    """Return whether all that was written after the position can still be told, and it is of this history."""
    first, last = _one(_BOUNDS)
    return first is None or first <= position.tx <= last


def read_clock_and_waiting() -> tuple[Reading, datetime | None]:
    """Return PostgreSQL's clock, and when the first of those transactions wrote that cannot be read yet.

    None where none waits. They have ended, while an older one has not, anywhere in the cluster.
    """
    now, waiting_since = _one(_CLOCK_AND_WAITING)
    return Reading(now, time.monotonic()), waiting_since


def read_history() -> str:
    """Return what tells this database and its history from all others."""
    return hashlib.sha256(_one(_HISTORY)[0].encode()).hexdigest()[:12]


def _one(query: str) -> tuple[Any, ...]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        row: tuple[Any, ...] = cursor.fetchone()
    return row


def _read_notes(after: Position) -> list[_Note]:
    first = after.tx + 1 if after.is_whole else after.tx
    with connection.cursor() as cursor:
        cursor.execute(_NOTES, {"first": first, "most": _NOTES_AT_ONCE, "rows": ROWS_AT_ONCE})
        return [_Note(*row) for row in cursor.fetchall()]


def _read_rows(notes: Sequence[_Note], symbols: Collection[str] | None) -> dict[Position, StoredRow]:
    values: dict[str, Any] = {
        "transactions": sorted({note.tx for note in notes}),
        "symbols": None if symbols is None else list(symbols),
        "ids": None,
    }
    wanted = [values | each._asdict() for each in _ranges(notes)]
    ids = [event_id for note in notes for event_id in (*note.added, *note.changed)]
    if ids:
        wanted.append(values | {"ids": ids, "lowest": min(ids), "highest": max(ids)})
    found = {}
    with connection.cursor() as cursor:
        for each in wanted:
            cursor.execute(_ROWS, each)
            for tx, event_id, *row in cursor.fetchall():
                found[Position(tx, event_id)] = StoredRow(*row)
    return found


def _ranges(notes: Sequence[_Note]) -> Iterator[_Range]:
    """Yield the ranges of the notes, those that are near each other as one."""
    ranges = sorted(
        _Range(note.first_id, note.last_id)
        for note in notes
        if note.first_id is not None and note.last_id is not None
    )
    joined = ranges[:1]
    for each in ranges[1:]:
        last = joined[-1]
        if each.lowest.int - last.highest.int > _NEAR:
            joined.append(each)
        else:
            joined[-1] = _Range(last.lowest, max(last.highest, each.highest))
    yield from joined
