"""What is left of a time that is still to come, after PostgreSQL's clock was ahead and is set right.

Slots accounted for, runs claimed and prices received by the clock that was ahead lie in the time to come.
Left as they are they would keep jobs from being polled until then, and pass for prices that have just come
when their time comes. Nothing is deleted but gaps: those of slots that are to be polled after all. Ids stay.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.db import connection, transaction
from django.db.models import Min

from prices.clock import database_now
from prices.database.uuid7 import first_id_at
from prices.ledger.gaps import take_back_gaps
from prices.ledger.grid import phase_of, slot_at
from prices.models import BeatTerm, JobStatus, PollJob

log = structlog.get_logger(__name__)

# One clock writes all of this. What it wrote is never later than it is, unless it was set back since.
BEYOND = timedelta(seconds=5)
# Beat notes within a second that the clock was set back, and since when it had led by the one that was ahead.
NOTED_WITHIN = timedelta(minutes=10)

# They began, or came, at this moment at the latest. A run that began before its slot was due can be claimed
# once more (prices/ledger/runs.py), and an open one is overdue a while from now.
_RUNS_BEGAN = """
    UPDATE poll_runs SET started_at = %(now)s,
        finished_at = CASE WHEN finished_at > %(now)s THEN %(now)s ELSE finished_at END
    WHERE id >= %(first_id)s AND started_at > %(now)s
"""
# A price of the running day has the time of its receipt for its own.
_POINTS_CAME = """
    UPDATE price_points
    SET received_at = %(now)s,
        observed_at = CASE WHEN precision = 'day' AND observed_at = received_at THEN %(now)s
                           ELSE observed_at END
    WHERE id >= %(first_id)s AND received_at > %(now)s
"""


def undo_time_to_come(*, now: datetime | None = None) -> None:
    """Put right what lies in the time after now, by PostgreSQL's clock: mostly nothing."""
    rows, moment = 0, now or database_now()
    with connection.cursor() as cursor:
        for statement in (_RUNS_BEGAN, _POINTS_CAME):
            cursor.execute(statement, {"now": moment, "first_id": first_id_at(moment + BEYOND)})
            rows += cursor.rowcount
    if rows:
        log.warning("clock.rows_of_time_to_come", rows=rows)
    ahead = PollJob.objects.filter(accounted_until__gt=moment + BEYOND).exclude(status=JobStatus.STOPPED)
    take_back_jobs(list(ahead.values_list("id", flat=True)), now=now)


def is_of_time_to_come(job: PollJob, *, now: datetime) -> bool:
    """Return whether the job is accounted for up to a time that is still to come: nobody could poll it."""
    return job.accounted_until > now + BEYOND


def take_back_job(job: PollJob, *, now: datetime) -> None:
    """Do as `take_back_jobs`, for a job whose row the caller has locked, in a transaction."""
    if is_of_time_to_come(job, now=now):
        _take_back(job, until=_ahead_since(now), now=now)


def take_back_jobs(job_ids: Sequence[UUID], *, now: datetime | None = None) -> None:
    """Account for the jobs only up to now, or to when the clock began to be ahead, if that is known."""
    taken_back = sum(_take_back_locked(job_id, now=now) for job_id in job_ids)
    if taken_back:
        log.warning("slots.taken_back", jobs=taken_back)


def _take_back_locked(job_id: UUID, *, now: datetime | None) -> bool:
    with transaction.atomic():
        job = PollJob.objects.select_for_update(no_key=True).get(id=job_id)
        # With the lock held: another one may have been faster, and this process may have been suspended.
        moment = now or database_now()
        if job.status == JobStatus.STOPPED or not is_of_time_to_come(job, now=moment):
            return False
        _take_back(job, until=_ahead_since(moment), now=moment)
    return True


def _ahead_since(now: datetime) -> datetime:
    noted = BeatTerm.objects.filter(clock_ahead_s__isnull=False, renewed_at__range=(now - NOTED_WITHIN, now))
    began: datetime | None = noted.aggregate(began=Min("began_at"))["began"]
    return min(now, began or now)


def _take_back(job: PollJob, *, until: datetime, now: datetime) -> None:
    phase = phase_of(job.provider, job.interval, job.symbols)
    job.accounted_until = slot_at(until, job.interval, phase) - timedelta(seconds=job.interval)
    job.created_at = min(job.created_at, now)
    if job.market_hours_from is not None:
        job.market_hours_from = min(job.market_hours_from, now)
    job.save(update_fields=["accounted_until", "created_at", "market_hours_from"])
    take_back_gaps(job.id, until=job.accounted_until)
