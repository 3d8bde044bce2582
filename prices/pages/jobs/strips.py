"""The last hour of jobs by the minute: what became of the slots that were due in each."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any
from uuid import UUID

from django.db import connection

from prices.ledger.gaps import GapReason
from prices.ledger.reports import first_run_id

MINUTES = 60
_MINUTE = timedelta(minutes=1)
# Of the picture, in its own units: each cell is a bar of a height that tells its outcome, too.
CELL_WIDTH, HEIGHT = 5, 24
_HEIGHTS = {"polled": 24, "some": 16, "missed": 8, "paused": 4, "closed": 4, "none": 2}
# What somebody wanted not to be polled.
_PAUSED = frozenset({GapReason.PAUSED, GapReason.SWITCHED_OFF})
_REASONS_TOLD = 2

_RUNS = """
SELECT job.id, floor(extract(epoch FROM run.due_at - %(since)s) / 60)::int AS minute,
       count(*) FILTER (WHERE run.state IN ('stored', 'shared')),
       count(*) FILTER (WHERE run.state IN ('failed', 'skipped')),
       min(run.reason) FILTER (WHERE run.state IN ('failed', 'skipped'))
FROM unnest(%(jobs)s::uuid[]) AS job (id)
CROSS JOIN LATERAL (
    SELECT due_at, state, reason FROM poll_runs
    WHERE job_id = job.id AND id >= %(first_id)s AND id < %(end_id)s
) AS run
GROUP BY job.id, minute
"""
# Gaps of a job do not overlap, so that one at most began before the hour.
_GAPS = """
SELECT gap.job_id, gap.from_due, gap.to_due, gap.slots, gap.reason
FROM unnest(%(jobs)s::uuid[]) AS job (id)
CROSS JOIN LATERAL (
    SELECT * FROM poll_gaps
    WHERE job_id = job.id AND from_due < %(until)s AND to_due >= %(since)s AND from_due >= coalesce(
        (SELECT max(from_due) FROM poll_gaps WHERE job_id = job.id AND from_due <= %(since)s), %(since)s)
) AS gap
"""


@dataclass(slots=True)
class Minute:
    """What became of the slots that were due in a minute; `reasons`: how many were missed for each."""

    start: datetime
    polled: int = 0
    missed: int = 0
    paused: int = 0
    closed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def outcome(self) -> str:
        """Return what the minute is shown as, in one word."""
        if self.missed:
            return "some" if self.polled else "missed"
        if self.polled:
            return "polled"
        return "paused" if self.paused else "closed" if self.closed else "none"

    def __str__(self) -> str:
        counts = {"polled": self.polled, "paused": self.paused, "while markets were closed": self.closed}
        told = [f"{count} {words}" for words, count in counts.items() if count]
        told += [f"{count} missed: {reason}" for reason, count in self.reasons.most_common()]
        return f"{self.start:%H:%M} UTC: {', '.join(told) or 'nothing due'}"


@dataclass(frozen=True, slots=True)
class Cell:
    """A minute as a bar of the picture."""

    x: int
    y: int
    height: int
    outcome: str
    title: str


@dataclass(frozen=True, slots=True)
class Strip:
    """An hour of a job, in order."""

    minutes: Sequence[Minute]

    @property
    def cells(self) -> Iterator[Cell]:
        """Return the bars of the picture."""
        for place, minute in enumerate(self.minutes):
            height = _HEIGHTS[minute.outcome]
            yield Cell(place * CELL_WIDTH, HEIGHT - height, height, minute.outcome, str(minute))

    @property
    def missed(self) -> int:
        """Return how many slots got no price."""
        return sum(minute.missed for minute in self.minutes)

    def __str__(self) -> str:
        polled, missed = sum(minute.polled for minute in self.minutes), self.missed
        paused, closed = (sum(getattr(each, name) for each in self.minutes) for name in ("paused", "closed"))
        told = [f"{polled:,} of {polled + missed:,} polled"] if polled + missed else []
        if missed:
            told.append(f"{missed:,} missed: {', '.join(self._reasons())}")
        if paused:
            told.append(f"{paused:,} while paused")
        if closed:
            told.append(f"{closed:,} left out while markets were closed")
        return "; ".join(told) or "nothing noted yet"

    def _reasons(self) -> Iterator[str]:
        """Say since when slots were missed for each reason, the most frequent ones first."""
        count = sum((minute.reasons for minute in self.minutes), Counter[str]())
        for reason, _slots in count.most_common(_REASONS_TOLD):
            times = [minute.start for minute in self.minutes if reason in minute.reasons]
            first, last = f"{times[0]:%H:%M}", f"{times[-1]:%H:%M}"
            yield f"{reason} at {first} UTC" if first == last else f"{reason} from {first} to {last} UTC"
        if len(count) > _REASONS_TOLD:
            yield f"{len(count) - _REASONS_TOLD} other reasons"


def strips_of(job_ids: Sequence[UUID], *, now: datetime) -> dict[UUID, Strip]:
    """Return the last 60 minutes of each job, the one of `now` among them. Two queries.

    What happened in the last minute may not be noted yet.
    """
    until = now.replace(second=0, microsecond=0) + _MINUTE
    since = until - MINUTES * _MINUTE
    found = {job_id: [Minute(since + place * _MINUTE) for place in range(MINUTES)] for job_id in job_ids}
    window: dict[str, Any] = {"jobs": list(job_ids), "since": since, "until": until}
    ids = {"first_id": first_run_id(since), "end_id": first_run_id(until)}
    with connection.cursor() as cursor:
        cursor.execute(_RUNS, window | ids)
        for job_id, place, polled, missed, reason in cursor.fetchall():
            _add(found[job_id][place], polled=polled, missed=missed, reason=reason or "no reason noted")
        cursor.execute(_GAPS, window)
        for job_id, from_due, to_due, slots, reason in cursor.fetchall():
            for place, count in _by_minute(from_due, to_due, slots, since=since):
                _add_gap(found[job_id][place], count, reason)
    return {job_id: Strip(minutes) for job_id, minutes in found.items()}


def _add(minute: Minute, *, polled: int = 0, missed: int = 0, reason: str) -> None:
    minute.polled += polled
    minute.missed += missed
    if missed:
        minute.reasons[reason] += missed


def _add_gap(minute: Minute, slots: int, reason: str) -> None:
    if reason == GapReason.MARKET_CLOSED:
        minute.closed += slots
    elif reason in _PAUSED:
        minute.paused += slots
    else:
        _add(minute, missed=slots, reason=reason)


def _by_minute(
    from_due: datetime, to_due: datetime, slots: int, *, since: datetime
) -> Iterator[tuple[int, int]]:
    """Yield which minutes of the hour have slots of a gap, and how many."""
    step = (to_due - from_due) / (slots - 1) if slots > 1 else _MINUTE
    if not step:
        step = _MINUTE
    first = max(-((from_due - since) // step), 0)
    last = min((since + MINUTES * _MINUTE - from_due - timedelta(microseconds=1)) // step, slots - 1)
    places = ((from_due + number * step - since) // _MINUTE for number in range(first, last + 1))
    for place, same in groupby(place for place in places if place >= 0):
        yield place, sum(1 for _ in same)
