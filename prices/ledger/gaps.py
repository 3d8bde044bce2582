"""Gaps: slots that were not polled, as ranges in poll_gaps, and why."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from django.db import connection

from prices.ledger.ranges import SlotRange
from prices.models import PollGap

# A row with one slot may belong to any grid; one with more must have the same distance between them.
_NEIGHBOURS = """
    SELECT DISTINCT gap.id, gap.job_id, gap.from_due, gap.to_due, gap.reason, wanted.step
    FROM unnest(%s::uuid[], %s::timestamptz[], %s::timestamptz[], %s::interval[], %s::text[])
        AS wanted (job_id, first, last, step, reason)
    CROSS JOIN LATERAL (
        (SELECT * FROM poll_gaps
         WHERE job_id = wanted.job_id AND from_due < wanted.first ORDER BY from_due DESC LIMIT 1)
        UNION ALL
        SELECT * FROM poll_gaps WHERE job_id = wanted.job_id AND from_due = wanted.last + wanted.step
    ) gap
    WHERE gap.reason = wanted.reason
      AND (gap.from_due > wanted.last OR gap.to_due = wanted.first - wanted.step)
      AND gap.to_due - gap.from_due = (gap.slots - 1) * wanted.step
"""
_EXTEND = """
    UPDATE poll_gaps gap SET from_due = longer.first, to_due = longer.last, slots = longer.slots
    FROM unnest(%s::uuid[], %s::timestamptz[], %s::timestamptz[], %s::int[])
        AS longer (id, first, last, slots)
    WHERE gap.id = longer.id
"""


_CUT = """
    WITH spanning AS (
        SELECT id, from_due, (to_due - from_due) / (slots - 1) AS step
        FROM poll_gaps
        WHERE job_id = %(job)s AND reason <> %(kept)s AND from_due <= %(until)s AND to_due > %(until)s
    ), kept AS (
        SELECT id, step,
               floor(extract(epoch FROM %(until)s - from_due) / extract(epoch FROM step))::int AS more
        FROM spanning
    )
    UPDATE poll_gaps gap SET slots = kept.more + 1, to_due = gap.from_due + kept.more * kept.step
    FROM kept
    WHERE gap.id = kept.id
"""


class GapReason(StrEnum):
    """Why slots were not polled: the texts in poll_gaps."""

    DOWN = "down: no scheduler ran"
    CLOCK_AHEAD = "clock: PostgreSQL's was ahead, and is set back since"
    NOT_POLLED = "no worker polled it in time"
    ABANDONED = "abandoned: the worker ended before the poll did"
    PAUSED = "paused"
    STOPPED = "stopped"
    SWITCHED_OFF = "switched off"
    INTERVAL_CHANGED = "interval changed"
    SYMBOLS_CHANGED = "symbols changed"
    MARKET_CLOSED = "market_closed: outside the hours of the job's markets"


@dataclass(frozen=True, slots=True)
class Gap:
    """Consecutive slots of a job that were not polled, for one reason; `row_id`: the row that holds them."""

    job_id: UUID
    slots: SlotRange
    reason: str
    row_id: UUID | None = None


def add_gaps(gaps: Sequence[Gap]) -> None:
    """Keep the gaps; what follows another gap of the same job and reason becomes one row with it.

    The caller holds the locks of the jobs' rows, in a transaction.
    """
    if not gaps:
        return
    obsolete: list[UUID] = []
    longer: list[Gap] = []
    new: list[PollGap] = []
    for parts in _adjoining([*gaps, *_neighbours(gaps)]):
        whole = parts[0].slots.with_following(parts[-1].slots)
        row_ids = [part.row_id for part in parts if part.row_id is not None]
        if row_ids:
            longer.append(Gap(parts[0].job_id, whole, parts[0].reason, row_ids[0]))
            obsolete += row_ids[1:]
        else:
            new.append(_row(parts[0], whole))
    PollGap.objects.filter(id__in=obsolete).delete()
    _extend(longer)
    PollGap.objects.bulk_create(new)


def take_back_gaps(job_id: UUID, *, until: datetime) -> None:
    """Forget the job's gaps after `until`; one that began before keeps its slots up to then.

    Those of abandoned runs stay, as the runs do. The caller holds the lock of the job's row, in a
    transaction.
    """
    after = PollGap.objects.filter(job=job_id, from_due__gt=until)
    after.exclude(reason=str(GapReason.ABANDONED)).delete()
    with connection.cursor() as cursor:
        cursor.execute(_CUT, {"job": job_id, "until": until, "kept": str(GapReason.ABANDONED)})


def _adjoining(gaps: Sequence[Gap]) -> list[list[Gap]]:
    """Return the gaps in groups, each of which is one range."""
    by_kind: dict[tuple[UUID, str], list[Gap]] = defaultdict(list)
    for gap in gaps:
        by_kind[gap.job_id, gap.reason].append(gap)
    groups: list[list[Gap]] = []
    for alike in by_kind.values():
        alike.sort(key=lambda gap: gap.slots.first)
        groups.append(alike[:1])
        for gap in alike[1:]:
            if groups[-1][-1].slots.is_followed_by(gap.slots):
                groups[-1].append(gap)
            else:
                groups.append([gap])
    return groups


def _neighbours(gaps: Sequence[Gap]) -> list[Gap]:
    columns: list[Any] = [
        [gap.job_id for gap in gaps],
        [gap.slots.first for gap in gaps],
        [gap.slots.last for gap in gaps],
        [gap.slots.step for gap in gaps],
        [str(gap.reason) for gap in gaps],
    ]
    with connection.cursor() as cursor:
        cursor.execute(_NEIGHBOURS, columns)
        rows: list[tuple[UUID, UUID, datetime, datetime, str, timedelta]] = cursor.fetchall()
    return [
        Gap(job_id, SlotRange(first, last, step), reason, row_id)
        for row_id, job_id, first, last, reason, step in rows
    ]


def _extend(longer: Sequence[Gap]) -> None:
    if not longer:
        return
    columns: list[Any] = [
        [gap.row_id for gap in longer],
        [gap.slots.first for gap in longer],
        [gap.slots.last for gap in longer],
        [gap.slots.count for gap in longer],
    ]
    with connection.cursor() as cursor:
        cursor.execute(_EXTEND, columns)


def _row(gap: Gap, slots: SlotRange) -> PollGap:
    return PollGap(
        job_id=gap.job_id,
        from_due=slots.first,
        to_due=slots.last,
        slots=slots.count,
        reason=str(gap.reason),
    )
