"""The ledger of a job: what became of its slots, and which were not polled, and why.

A run is one slot that was claimed; runs are kept for 7 days. A gap is a range of slots that were not, kept
for good. A run that was abandoned lies in a gap, too, and counts as one.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import QuerySet

from prices.database.uuid7 import EPOCH
from prices.ledger.gaps import GapReason
from prices.models import PollJob, PollRun

DAY = timedelta(days=1)
# What is read and merged at once.
LONGEST_WINDOW = timedelta(days=7)

# A gap cut to the window: `low` and `high` are its first and last slot there, counted from its own first.
# Gaps of a job do not overlap, so that one at most began before the window. LEAST and GREATEST ignore nulls:
# a gap of one slot has no step.
_GAPS = """
    SELECT gap.from_due, gap.reason, step.s,
           greatest(0, ceil(extract(epoch FROM %(since)s - gap.from_due) / step.s))::bigint AS low,
           least(gap.slots - 1, ceil(extract(epoch FROM %(until)s - gap.from_due) / step.s) - 1)::bigint
               AS high
    FROM poll_gaps gap
    CROSS JOIN LATERAL (
        SELECT nullif(extract(epoch FROM gap.to_due - gap.from_due) / nullif(gap.slots - 1, 0), 0) AS s
    ) step
    WHERE gap.job_id = %(job)s AND gap.from_due < %(until)s AND gap.to_due >= %(since)s
      AND gap.from_due >= coalesce(
          (SELECT max(from_due) FROM poll_gaps WHERE job_id = %(job)s AND from_due <= %(since)s), %(since)s)
"""
# All runs, the newest first. A range ends where the next newer run had another outcome or reason, or is
# further away than the interval. Runs from before the interval was made longer lie closer than that: there
# the gaps tell whether a slot in between was left out.
_UNPOLLED = f"""
    WITH gaps AS ({_GAPS}), neighbours AS (
        SELECT id, due_at, state, reason, lag(due_at) OVER newer AS next_due,
               (state, reason) IS DISTINCT FROM (lag(state) OVER newer, lag(reason) OVER newer) AS differs
        FROM poll_runs
        WHERE job_id = %(job)s AND id >= %(first_id)s AND id < %(end_id)s
        WINDOW newer AS (ORDER BY id DESC)
    ), marked AS (
        SELECT *, state IN ('failed', 'skipped') AND (
            differs OR next_due - due_at > %(interval)s
            OR next_due - due_at < %(interval)s AND EXISTS (
                SELECT FROM poll_gaps
                WHERE job_id = %(job)s AND from_due > neighbours.due_at AND from_due < neighbours.next_due)
        ) AS is_last
        FROM neighbours
    ), numbered AS (
        SELECT *, count(*) FILTER (WHERE is_last) OVER (ORDER BY id DESC) AS number FROM marked
    )
    SELECT from_due + low * coalesce(s, 0) * interval '1 second' AS from_due,
           from_due + high * coalesce(s, 0) * interval '1 second', high - low + 1, reason,
           CASE WHEN reason = %(closed)s THEN 'market_closed' ELSE 'gap' END
    FROM gaps
    WHERE high >= low
    UNION ALL
    SELECT min(due_at), max(due_at), count(*), reason, state
    FROM numbered
    WHERE state IN ('failed', 'skipped') AND number <= %(limit)s
    GROUP BY number, state, reason
    ORDER BY from_due DESC
    LIMIT %(limit)s
"""  # noqa: S608 - no outside text
_COUNTS = f"""
    WITH gaps AS ({_GAPS})
    SELECT count(*) FILTER (WHERE state = 'stored'), count(*) FILTER (WHERE state = 'shared'),
           count(*) FILTER (WHERE state = 'failed'), count(*) FILTER (WHERE state = 'skipped'),
           (SELECT coalesce(sum(high - low + 1), 0)::bigint FROM gaps
            WHERE high >= low AND reason <> %(closed)s),
           (SELECT coalesce(sum(high - low + 1), 0)::bigint FROM gaps
            WHERE high >= low AND reason = %(closed)s)
    FROM poll_runs
    WHERE job_id = %(job)s AND id >= %(first_id)s AND id < %(end_id)s
"""  # noqa: S608 - no outside text


@dataclass(frozen=True, slots=True)
class MissedRange:
    """Consecutive slots of a job that got no price, for one reason.

    `kind` is `gap` where nobody polled, `market_closed` where nobody was to, else the state of the runs:
    `failed` or `skipped`.
    """

    from_due: datetime
    to_due: datetime
    slots: int
    reason: str
    kind: str


@dataclass(frozen=True, slots=True)
class SlotCounts:
    """What became of a job's slots in some time, without those that are still open or not noted yet.

    `market_closed` are those outside of its markets' hours, in which nobody was to poll.
    """

    stored: int
    shared: int
    failed: int
    skipped: int
    in_gaps: int
    market_closed: int

    @property
    def slots(self) -> int:
        """How many slots were to be polled."""
        return self.stored + self.shared + self.failed + self.skipped + self.in_gaps

    @property
    def success_rate(self) -> float | None:
        """The share of the slots that got a price; None where there were no slots."""
        return (self.stored + self.shared) / self.slots if self.slots else None


def runs_of(
    job: PollJob,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    states: Collection[str] = (),
) -> QuerySet[PollRun]:
    """Return the job's runs of slots from `since` on and before `until`, newest first.

    Those of all states where none is given.
    """
    runs = PollRun.objects.filter(job=job).order_by("-id")
    if since is not None:
        runs = runs.filter(id__gte=first_run_id(since))
    if until is not None:
        runs = runs.filter(id__lt=first_run_id(until))
    return runs.filter(state__in=states) if states else runs


def missed_slots(job: PollJob, *, since: datetime, until: datetime, limit: int) -> list[MissedRange]:
    """Return what was not polled in the window, or without success: the newest ranges, up to `limit`.

    Ranges are cut to the slots from `since` on and before `until`, and never overlap: the next ones are those
    until `from_due` of the last. All runs of the window may be read: keep it within LONGEST_WINDOW.
    """
    parameters = _parameters(job, since, until) | {
        "interval": timedelta(seconds=job.interval),
        "limit": limit,
    }
    with connection.cursor() as cursor:
        cursor.execute(_UNPOLLED, parameters)
        return [MissedRange(*row) for row in cursor.fetchall()]


def count_slots(job: PollJob, *, since: datetime, until: datetime) -> SlotCounts:
    """Return what became of the job's slots from `since` on and before `until`."""
    with connection.cursor() as cursor:
        cursor.execute(_COUNTS, _parameters(job, since, until))
        return SlotCounts(*cursor.fetchone())


def count_last_day(job: PollJob, *, now: datetime) -> SlotCounts:
    """Return what became of the job's slots in the last 24 hours."""
    return count_slots(job, since=now - DAY, until=now)


def _parameters(job: PollJob, since: datetime, until: datetime) -> dict[str, Any]:
    ids = {"first_id": first_run_id(since), "end_id": first_run_id(until)}
    return {"job": job.id, "since": since, "until": until, "closed": str(GapReason.MARKET_CLOSED)} | ids


def first_run_id(moment: datetime) -> UUID:
    """Return the lowest id that the run of a slot at this moment or later can have."""
    # Slots are whole milliseconds: what begins within one is not in it.
    milliseconds = -((EPOCH - max(moment, EPOCH)) // timedelta(milliseconds=1))
    return UUID(int=milliseconds << 80)
