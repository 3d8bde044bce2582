"""What became of the slots that were due in a time, by the tables: missed, doubled, and how late.

Each job has a symbol of its own, so a request or a point belongs to the run in whose time it came.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, Self, TypeAlias
from uuid import UUID

from django.db import connection
from django.utils import timezone

from bench.poll_jobs import Changes, due_slots
from prices.models import PollJob

# A job that is created or stopped need not be polled at slots so close to that.
_UNSURE = timedelta(seconds=1)
_Slot: TypeAlias = tuple[UUID, datetime]


@dataclass(frozen=True)
class Window:
    """Slots that are due in this time count."""

    begin: datetime
    end: datetime


@dataclass(frozen=True)
class Spread:
    """Of so many waits, in milliseconds; None where there are none."""

    count: int
    p50_ms: float | None
    p99_ms: float | None
    most_ms: float | None

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Self:
        """Return the spread of waits in seconds."""
        ordered = sorted(seconds)
        if not ordered:
            return cls(0, None, None, None)
        p50, p99, most = (ordered[math.ceil(len(ordered) * part) - 1] * 1000 for part in (0.5, 0.99, 1))
        return cls(len(ordered), p50, p99, most)


@dataclass(frozen=True)
class Polled:
    """Counts of slots, and how long after it was due each reached a worker, was stored, was in Kafka.

    `sent`: a worker took it. `missed`: no price answered it. `doubled`: requests beyond one for each run.
    `in_second`: the share of all due slots whose price Kafka confirmed within a second (one that an earlier
    price answered: that was stored within a second). `first_poll`: from the answer to a job's creation to
    its first run; for a job without one, to the end.
    """

    due: int
    sent: int
    missed: int
    doubled: int
    in_second: float
    at_worker: Spread
    stored: Spread
    confirmed: Spread
    first_poll: Spread | None


class _Run(NamedTuple):
    # Waits are in seconds after the slot was due.
    points: int
    is_shared: bool
    began: float
    stored: float | None
    confirmed: float | None

    @property
    def answered(self) -> float:
        last = self.stored if self.is_shared else self.confirmed
        return math.inf if last is None or not self.points else last


def read_polled(jobs: Sequence[PollJob], changes: Changes | None, window: Window) -> Polled:
    """Compare the slots that were due with what the tables hold."""
    due = _due(jobs, changes, window)
    runs = [run for slot, run in _runs(window).items() if slot in due]
    served = [run for run in runs if run.points]
    return Polled(
        due=len(due),
        sent=len(runs),
        missed=len(due) - len(served),
        doubled=_doubled(),
        in_second=sum(run.answered < 1 for run in runs) / max(len(due), 1),
        at_worker=Spread.of(run.began for run in runs),
        stored=Spread.of(run.stored for run in served if run.stored is not None),
        confirmed=Spread.of(run.confirmed for run in served if run.confirmed is not None),
        first_poll=_first_polls(changes, window) if changes else None,
    )


def _due(jobs: Sequence[PollJob], changes: Changes | None, window: Window) -> set[_Slot]:
    created = changes.created if changes else {}
    stopped = changes.stopped if changes else {}
    due: set[_Slot] = set()
    for job in [*jobs, *(changes.jobs if changes else ())]:
        begin, end = window.begin, window.end
        if job.id in created:
            begin = max(begin, created[job.id] + _UNSURE)
        if job.id in stopped:
            end = min(end, stopped[job.id] - _UNSURE)
        due.update((job.id, slot) for slot in due_slots(job, begin=begin, end=end))
    return due


_RUNS = """
    SELECT run.job_id, run.due_at, run.points, run.state = 'shared',
           extract(epoch FROM run.started_at - run.due_at)::float,
           extract(epoch FROM run.finished_at - run.due_at)::float,
           extract(epoch FROM min(point.published_at) - run.due_at)::float
    FROM poll_runs run JOIN poll_jobs job ON job.id = run.job_id
    LEFT JOIN price_points point ON point.symbol = job.symbols[1]
        AND point.received_at BETWEEN run.started_at AND run.finished_at
    WHERE run.due_at >= %s AND run.due_at < %s GROUP BY run.id
"""
# A run that took another's price has no request of its own.
_DOUBLED = """
    WITH asked AS (
        SELECT id, symbol, received_at FROM raw_market_data, unnest(symbols) symbol
    ), matched AS (
        SELECT DISTINCT run.id FROM poll_runs run JOIN poll_jobs job ON job.id = run.job_id
        JOIN asked ON asked.symbol = job.symbols[1]
            AND asked.received_at BETWEEN run.started_at AND coalesce(run.finished_at, 'infinity')
        WHERE run.state NOT IN ('shared', 'skipped')
    )
    SELECT (SELECT count(*) FROM asked) - (SELECT count(*) FROM matched)
"""
_FIRST_RUNS = "SELECT job_id, min(started_at) FROM poll_runs WHERE job_id = ANY(%s) GROUP BY job_id"


def _runs(window: Window) -> dict[_Slot, _Run]:
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE poll_runs, raw_market_data, price_points")
        cursor.execute(_RUNS, [window.begin, window.end])
        return {(job_id, due_at): _Run(*figures) for job_id, due_at, *figures in cursor.fetchall()}


def _doubled() -> int:
    with connection.cursor() as cursor:
        cursor.execute(_DOUBLED)
        return int(cursor.fetchone()[0])


def _first_polls(changes: Changes, window: Window) -> Spread:
    with connection.cursor() as cursor:
        cursor.execute(_FIRST_RUNS, [list(changes.created)])
        first = dict(cursor.fetchall())
    now = timezone.now()
    return Spread.of(
        (first.get(job_id, now) - answered).total_seconds()
        for job_id, answered in changes.created.items()
        if answered >= window.begin
    )
