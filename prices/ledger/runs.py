"""Claims: who polls a slot. One row of poll_runs for each, written before anything is asked.

A claim is an insert whose id is made of the slot and the job, so a second one conflicts; it ends with one
outcome. A slot is never polled twice, whatever process dies.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection, transaction

from prices.clock import database_now
from prices.ledger.gaps import Gap, GapReason, add_gaps
from prices.ledger.grid import phase_of, run_id_of, slot_at
from prices.ledger.market_hours import is_polled_at
from prices.ledger.ranges import SlotRange
from prices.ledger.set_back import is_of_time_to_come, take_back_jobs
from prices.models import JobStatus, PollJob, PollRun, RunState

log = structlog.get_logger(__name__)

# One statement: whoever changes or accounts for a job waits for it, and it waits for them, and then looks
# once more. A worker that was suspended since it computed its slots claims none that lies in a gap by now, or
# on a grid that is no longer the job's. In the order of the ids, as in `finish`: in another order two of them
# would wait for each other. A run that began before its slot was due is of a clock that was ahead by much
# (prices/ledger/set_back.py): the slot is polled in its time. None begins so where the clock is set back a
# little since the worker read it, as while this statement waits for a job.
_CLAIM = """
    WITH wanted AS (
        SELECT job.id, slot.run_id, slot.due_at
        FROM unnest(%s::uuid[], %s::uuid[], %s::timestamptz[], %s::int[], %s::text[])
            AS slot (job_id, run_id, due_at, interval, symbols)
        JOIN poll_jobs job ON job.id = slot.job_id
        JOIN django_celery_beat_periodictask task ON task.id = job.periodic_task_id
        WHERE job.status = 'active' AND task.enabled
          AND slot.due_at > job.accounted_until
          AND slot.interval = job.interval AND slot.symbols = array_to_string(job.symbols, ' ')
        ORDER BY job.id
        FOR SHARE OF job
    )
    INSERT INTO poll_runs (id, job_id, due_at, state, reason, points, started_at)
    SELECT run_id, id, due_at, 'claimed', '', 0, greatest(clock_timestamp(), due_at) FROM wanted
    ON CONFLICT (id) DO UPDATE
    SET state = 'claimed', reason = '', points = 0, started_at = excluded.started_at, finished_at = NULL
    WHERE poll_runs.started_at < poll_runs.due_at AND poll_runs.state <> 'abandoned'
    RETURNING job_id
"""
_LOCK_JOBS = "SELECT FROM poll_jobs WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE"
_ABANDON = """
    UPDATE poll_runs
    SET state = 'abandoned', reason = %s, finished_at = %s
    WHERE id = ANY(%s) AND state = 'claimed'
    RETURNING job_id, due_at
"""
ABANDONED_AT_A_TIME = 1000
_WORKER_ENDED = GapReason.ABANDONED.partition(": ")[2]
# A run that has its outcome keeps it: written again (the answer to a COMMIT was lost), nothing changes.
# Market hours begin with the first price of a slot since the job's last change.
_FINISH = """
    WITH outcome AS (
        SELECT * FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::int[], %s::boolean[], %s::text[],
                             %s::text[])
            AS reported (run_id, state, reason, points, counts, served_by, error)
    ), finished AS (
        UPDATE poll_runs run
        SET state = outcome.state, reason = outcome.reason, points = outcome.points,
            finished_at = greatest(clock_timestamp(), started_at)
        FROM outcome
        WHERE run.id = outcome.run_id AND run.state = 'claimed'
        RETURNING run.job_id, run.due_at, outcome.*
    )
    UPDATE poll_jobs job
    SET last_run_at = statement_timestamp(),
        last_success_at = CASE WHEN finished.points > 0 THEN statement_timestamp() ELSE last_success_at END,
        last_error = finished.error,
        failures = CASE WHEN finished.points > 0 THEN 0 ELSE failures + 1 END,
        served_by = coalesce(finished.served_by, job.served_by),
        market_hours_from = CASE WHEN job.market_hours AND finished.points > 0
                                      AND finished.due_at > job.accounted_until
                                 THEN coalesce(job.market_hours_from, finished.due_at)
                                 ELSE job.market_hours_from END
    FROM finished
    WHERE job.id = finished.job_id AND finished.counts
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A slot that this worker, and no other, polls."""

    run_id: UUID
    job: PollJob
    due_at: datetime
    claimed_at: float  # by the monotonic clock, in seconds

    @property
    def deadline(self) -> float:
        """Return when the last request may begin, by the monotonic clock.

        A quarter of the deadline is left for that request's answer and for storing what came.
        """
        return self.claimed_at + 0.75 * settings.POLL_DEADLINE_S


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What became of a claimed slot.

    `points` counts the prices that answered it, `reason` says what is missing and why, `error` as much of it
    as is a failure: what the budget withheld is none. `counts`: the job's last run, error and failures follow
    it. `served_by` is the provider that the job keeps, None where that does not change.
    """

    claim: Claim
    state: RunState
    reason: str = ""
    error: str = ""
    points: int = 0
    counts: bool = True
    served_by: str | None = None


def claim_slots(job_ids: Sequence[UUID], *, now: datetime | None = None) -> list[Claim]:
    """Claim the jobs' slots at `now` for this worker; those that cannot be claimed are left out.

    A slot was claimed before, or lies in a gap, or its job is unknown, paused, stopped or switched off, or it
    is outside of the job's market hours. `now` is by default the time by PostgreSQL's clock: that of the
    worker decides nothing.
    """
    now = now or database_now()
    jobs = PollJob.objects.in_bulk(job_ids)
    take_back_jobs([job.id for job in jobs.values() if is_of_time_to_come(job, now=now)])
    for job_id in set(job_ids) - set(jobs):
        log.warning("poll.job_unknown", job_id=str(job_id))
    at = {
        job.id: slot_at(now, job.interval, phase_of(job.provider, job.interval, job.symbols))
        for job in jobs.values()
    }
    slots = {job_id: due_at for job_id, due_at in at.items() if is_polled_at(jobs[job_id], due_at)}
    run_ids = {job_id: run_id_of(job_id, due_at) for job_id, due_at in slots.items()}
    with connection.cursor() as cursor:
        intervals = [jobs[job_id].interval for job_id in slots]
        # As one text: SQL knows no lists of lists of different lengths.
        symbols = [" ".join(jobs[job_id].symbols) for job_id in slots]
        cursor.execute(
            _CLAIM, [list(slots), list(run_ids.values()), list(slots.values()), intervals, symbols]
        )
        claimed = [row[0] for row in cursor.fetchall()]
    claimed_at = time.monotonic()
    return [Claim(run_ids[job_id], jobs[job_id], slots[job_id], claimed_at) for job_id in claimed]


def reopen_claims(run_ids: Sequence[UUID]) -> list[Claim]:
    """Return claims that another worker handed over: those without an outcome. Their time may be over."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, extract(epoch FROM clock_timestamp() - started_at) FROM poll_runs"
            " WHERE id = ANY(%s) AND state = 'claimed'",
            [list(run_ids)],
        )
        age_s = {run_id: float(age) for run_id, age in cursor.fetchall()}
    runs = PollRun.objects.filter(id__in=age_s).select_related("job").order_by("id")
    now = time.monotonic()
    return [Claim(run.id, run.job, run.due_at, now - age_s[run.id]) for run in runs]


def active_jobs(job_ids: Sequence[UUID]) -> set[UUID]:
    """Return those of the jobs that are to be polled: active, and not switched off by hand."""
    jobs = PollJob.objects.filter(id__in=job_ids, status=JobStatus.ACTIVE, periodic_task__enabled=True)
    return set(jobs.values_list("id", flat=True))


def finish(outcomes: Sequence[RunOutcome]) -> None:
    """Write what became of claims, on the runs and on their jobs; written twice, it changes nothing more."""
    if not outcomes:
        return
    columns: list[Any] = [
        [outcome.claim.run_id for outcome in outcomes],
        [str(outcome.state) for outcome in outcomes],
        [outcome.reason[:2000] for outcome in outcomes],
        [outcome.points for outcome in outcomes],
        [outcome.counts for outcome in outcomes],
        [outcome.served_by for outcome in outcomes],
        [outcome.error[:2000] for outcome in outcomes],
    ]
    with transaction.atomic(), connection.cursor() as cursor:
        # Jobs before runs, as in a claim.
        cursor.execute(_LOCK_JOBS, [[outcome.claim.job.id for outcome in outcomes]])
        cursor.execute(_FINISH, columns)


def skip_slots(job_ids: Sequence[UUID], reason: str) -> None:
    """Note why the jobs' current slots were left out, as far as nobody has claimed them."""
    claims = claim_slots(job_ids)
    finish([RunOutcome(claim, RunState.SKIPPED, reason=reason, error=reason) for claim in claims])


def abandon_overdue_runs(*, now: datetime) -> int:
    """Mark claims without an outcome after POLL_DEADLINE_S as abandoned, as gaps too; return how many.

    Their worker died. Such a slot is not fetched again: another answer would be of another time.
    """
    count = 0
    while overdue := _overdue_runs(now):
        count += _abandon(overdue, now=now)
    if count:
        log.warning("poll.abandoned", runs=count)
    return count


def _overdue_runs(now: datetime) -> list[tuple[UUID, UUID]]:
    started_before = now - timedelta(seconds=settings.POLL_DEADLINE_S)
    overdue = PollRun.objects.filter(state=RunState.CLAIMED, started_at__lt=started_before)
    return list(overdue.order_by("id").values_list("id", "job_id")[:ABANDONED_AT_A_TIME])


def _abandon(runs: Sequence[tuple[UUID, UUID]], *, now: datetime) -> int:
    run_ids, job_ids = zip(*runs, strict=True)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_LOCK_JOBS, [list(job_ids)])
        jobs = PollJob.objects.in_bulk(job_ids)
        cursor.execute(_ABANDON, [_WORKER_ENDED, now, list(run_ids)])
        abandoned = cursor.fetchall()
        add_gaps(
            [
                Gap(job_id, _one_slot(jobs[job_id], due_at), GapReason.ABANDONED)
                for job_id, due_at in abandoned
            ]
        )
    return len(abandoned)


def _one_slot(job: PollJob, due_at: datetime) -> SlotRange:
    phase = phase_of(job.provider, job.interval, job.symbols)
    is_on_grid = slot_at(due_at, job.interval, phase) == due_at
    # A slot of an interval that the job had before follows no other: what lies between them is not known.
    step = timedelta(seconds=job.interval) if is_on_grid else timedelta.resolution
    return SlotRange(due_at, due_at, step)
