"""Jobs: create, change, pause, resume, stop, delete. poll_jobs is the truth; the PeriodicTask follows it."""

import time
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import transaction
from django_celery_beat.models import PeriodicTask, PeriodicTasks

from prices.access.rights import FULL_ACCESS, Access
from prices.clock import database_now
from prices.database.uuid7 import new_ids
from prices.jobs.listing import select_jobs
from prices.jobs.periodic_tasks import change_task, interval_schedule, switch_task
from prices.ledger.accounting import account_for_change
from prices.ledger.gaps import GapReason
from prices.ledger.grid import phase_of, slot_at
from prices.ledger.market_hours import is_polled_at
from prices.models import JobStatus, PollJob, PollRun, RunState
from prices.symbols import is_simulated
from providers.keys import SIMULATED
from providers.registry import PROVIDER_NAMES, missing_setting

log = structlog.get_logger(__name__)

POLL_TASK = "prices.tasks.poll_job"
POLL_TOGETHER_TASK = "prices.tasks.poll_jobs"
# A fetch starts within moments of the look at the job's status; the stop need not wait for its end.
FETCH_STARTS_WITHIN_S = 2.0


class JobNotFoundError(LookupError):
    """There is no job of this id, or it was deleted."""


class JobStoppedError(ValueError):
    """The job has ended for good: it can be neither paused nor resumed."""


class JobNotStoppedError(ValueError):
    """The job has not ended, so that it cannot be deleted; `status` is what it does."""

    def __init__(self, job: PollJob) -> None:
        super().__init__(job.id)
        self.status = job.status


class UnservedSymbolsError(ValueError):
    """The provider that the job names does not serve the symbols: of simulated and real ones, the others."""

    def __init__(self, provider: str) -> None:
        super().__init__(f"cannot be served by {provider}")


def queue_of(provider: str) -> str:
    """Return the Celery queue of a provider; each has its own, so that one that hangs delays only itself."""
    return f"poll.{provider}"


def provider_of_queue(queue: str | None) -> str | None:
    """Return the provider that the workers of a queue ask; None for any other queue."""
    return next((name for name in PROVIDER_NAMES if queue_of(name) == queue), None)


def choose_provider(symbols: Sequence[str], provider: str | None) -> str:
    """Return who is asked: the named provider, else the first of PROVIDER_ORDER that is configured."""
    if provider is not None:
        return provider
    if all(is_simulated(symbol) for symbol in symbols):
        return SIMULATED
    order: list[str] = settings.PROVIDER_ORDER
    return next((name for name in order if missing_setting(name) is None), order[0])


def provider_for(symbols: Sequence[str], *, served_by: str | None) -> str:
    """Return who is asked where no provider is named: who served last, else the first that is configured."""
    # The job may have gone over from real symbols to simulated ones since, or back.
    is_of_its_kind = (served_by == SIMULATED) == is_simulated(symbols[0])
    if served_by is not None and is_of_its_kind and missing_setting(served_by) is None:
        return served_by
    return choose_provider(symbols, None)


def provider_of(job: PollJob) -> str:
    """Return who is asked for the job at its next poll."""
    return job.provider or provider_for(job.symbols, served_by=job.served_by)


def next_provider(job: PollJob, *, tried: Sequence[str]) -> str | None:
    """Return who is asked after those that failed; None where the job names its provider, or none is left."""
    if job.provider is not None or SIMULATED in tried:
        return None
    order: list[str] = settings.PROVIDER_ORDER
    return next((name for name in order if name not in tried and missing_setting(name) is None), None)


def create_job(
    *,
    symbols: Sequence[str],
    interval: int,
    provider: str | None,
    client_id: UUID | None = None,
    market_hours: bool = False,
    now: datetime | None = None,
) -> PollJob:
    """Create an active job (symbols normalised, interval in seconds) and its PeriodicTask.

    Its first slot is the one at `now`, by default the time by PostgreSQL's clock. A job of no client is
    everybody's.
    """
    now = now or database_now()
    first_slot = slot_at(now, interval, phase_of(provider, interval, symbols))
    with transaction.atomic():
        (job_id,) = new_ids(1)
        job = PollJob(id=job_id, symbols=list(symbols), interval=interval, provider=provider)
        job.client_id, job.market_hours = client_id, market_hours
        job.created_at = now
        job.accounted_until = first_slot - timedelta(seconds=interval)
        job.periodic_task = PeriodicTask(
            name=f"poll job {job_id}",
            interval=interval_schedule(interval),
            **periodic_task_fields(job),
        )
        # Not by `save`, which marks the one row of django-celery-beat's PeriodicTasks: all who create, stop
        # or pause a job would wait for each other. Beat sees changes of poll_jobs by themselves.
        PeriodicTask.objects.bulk_create([job.periodic_task])
        job.save(force_insert=True)
    log.info("job.created", job_id=str(job.id), provider=provider, **_log_fields(job))
    return job


def periodic_task_fields(job: PollJob) -> dict[str, Any]:
    """Return what a job's PeriodicTask says besides its name, its interval and whether it is enabled."""
    return {
        "task": POLL_TASK,
        "description": ", ".join(job.symbols)[:1000],
        "args": f'["{job.id}"]',
        "kwargs": "{}",
        "headers": "{}",
        "queue": queue_of(provider_of(job)),
        "exchange": None,
        "routing_key": None,
        "priority": None,
        # A worker would compare it with its own clock; it claims the slot of the moment, if nobody has.
        "expire_seconds": None,
        "expires": None,
        "start_time": None,
        "one_off": False,
    }


def get_job(job_id: UUID, access: Access = FULL_ACCESS) -> PollJob:
    """Return a job with its PeriodicTask. Raises JobNotFoundError, also for one that is not the caller's."""
    job = select_jobs(access=access).filter(id=job_id).first()
    if job is None:
        raise JobNotFoundError(job_id)
    return job


def pause_job(job_id: UUID, *, now: datetime | None = None, waits: bool = True) -> PollJob:
    """Stop polling until the job is resumed. Raises JobNotFoundError, JobStoppedError.

    `waits`: as of `stop_job`.
    """
    return _change_status(job_id, JobStatus.PAUSED, now=now or database_now(), waits=waits)


def resume_job(job_id: UUID, *, now: datetime | None = None) -> PollJob:
    """Poll again, beginning with the slot at `now`. Raises JobNotFoundError, JobStoppedError."""
    return _change_status(job_id, JobStatus.ACTIVE, now=now or database_now())


def stop_job(job_id: UUID, *, now: datetime | None = None, waits: bool = True) -> PollJob:
    """End the job for good; stopping a stopped one changes nothing. Raises JobNotFoundError.

    Once this returns no fetch starts for the job. Who stops many says that it does not wait, and calls
    `wait_for_started_fetches` once for all of them.
    """
    return _change_status(job_id, JobStatus.STOPPED, now=now or database_now(), waits=waits)


def delete_job(job_id: UUID, *, now: datetime | None = None) -> None:
    """Show a stopped job no more; what it polled and missed stays.

    Raises JobNotFoundError, JobNotStoppedError.
    """
    with transaction.atomic():
        job = _locked_job(job_id)
        if job.status != JobStatus.STOPPED:
            raise JobNotStoppedError(job)
        job.deleted_at = now or database_now()
        job.save(update_fields=["deleted_at"])
    log.info("job.deleted", job_id=str(job_id))


def wait_for_started_fetches(job_ids: Collection[UUID]) -> None:
    """Wait until no fetch can start any more for jobs that were paused or stopped, 2 s at most."""
    # A worker that looked at the status before the change may be about to fetch: its run is open.
    deadline = time.monotonic() + FETCH_STARTS_WITHIN_S
    recent = database_now() - timedelta(seconds=settings.POLL_DEADLINE_S)
    running = PollRun.objects.filter(job__in=job_ids, state=RunState.CLAIMED, started_at__gte=recent)
    while running.exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def change_job(
    job_id: UUID,
    *,
    interval: int | None = None,
    symbols: Sequence[str] | None = None,
    market_hours: bool | None = None,
    now: datetime | None = None,
) -> PollJob:
    """Poll the job each `interval` seconds, or other symbols, or in market hours; None leaves each as it is.

    It begins with the first slot after `now`; the grid follows from interval and symbols. Symbols are
    normalised, and all simulated or all real. Raises JobNotFoundError, JobStoppedError, UnservedSymbolsError.
    """
    with transaction.atomic():
        job = _locked_job(job_id)
        if job.status == JobStatus.STOPPED:
            raise JobStoppedError(job_id)
        interval, symbols = interval or job.interval, list(symbols or job.symbols)
        if job.provider is not None and (job.provider == SIMULATED) != is_simulated(symbols[0]):
            raise UnservedSymbolsError(job.provider)
        market_hours = job.market_hours if market_hours is None else market_hours
        if (interval, symbols, market_hours) != (job.interval, job.symbols, job.market_hours):
            _change_what_is_polled(job, interval, symbols, market_hours, now=now or database_now())
    return job


def _change_what_is_polled(
    job: PollJob, interval: int, symbols: list[str], market_hours: bool, *, now: datetime
) -> None:
    account_for_change(job, now=now, cut_off=_cut_off(job, interval, symbols, now=now))
    if not market_hours or not set(symbols) <= set(job.symbols):
        # The first price of new symbols may come at any hour, as a new job's.
        job.market_hours_from = None
    elif not job.market_hours and job.last_success_at is not None:
        job.market_hours_from = now
    job.interval, job.symbols, job.market_hours = interval, symbols, market_hours
    job.save(update_fields=["interval", "symbols", "market_hours", "market_hours_from"])
    change_task(job.periodic_task, interval=interval_schedule(interval), **periodic_task_fields(job))
    # The caller's transaction may still refuse it.
    transaction.on_commit(lambda: log.info("job.changed", job_id=str(job.id), **_log_fields(job)))


def _cut_off(job: PollJob, interval: int, symbols: list[str], *, now: datetime) -> GapReason | None:
    """Return why the current slot cannot be polled any more once this is changed; None: it still can."""
    if interval != job.interval:
        return GapReason.INTERVAL_CHANGED
    if symbols != job.symbols:
        return GapReason.SYMBOLS_CHANGED
    current = slot_at(now, job.interval, phase_of(job.provider, job.interval, job.symbols))
    is_left_out = job.status == JobStatus.ACTIVE and not is_polled_at(job, current)
    return GapReason.MARKET_CLOSED if is_left_out else None


def _log_fields(job: PollJob) -> dict[str, Any]:
    return {"interval_s": job.interval, "symbols": len(job.symbols), "market_hours": job.market_hours}


def _locked_job(job_id: UUID) -> PollJob:
    job = select_jobs().select_for_update().filter(id=job_id).first()
    if job is None:
        raise JobNotFoundError(job_id)
    return job


def _change_status(job_id: UUID, status: JobStatus, *, now: datetime, waits: bool = True) -> PollJob:
    with transaction.atomic():
        job = _locked_job(job_id)
        if job.status == JobStatus.STOPPED and status != JobStatus.STOPPED:
            raise JobStoppedError(job_id)
        changed = job.status != status
        is_switched = job.periodic_task.enabled != (status == JobStatus.ACTIVE)
        # A stopped job has no slots, whatever was done to its task.
        if changed or (is_switched and job.status != JobStatus.STOPPED):
            cut_off = GapReason.STOPPED if status == JobStatus.STOPPED else None
            account_for_change(job, now=now, cut_off=cut_off)
        if changed:
            job.status = status
            if status == JobStatus.ACTIVE:
                # It is polled at once, at whatever hour.
                job.market_hours_from = None
            job.save(update_fields=["status", "market_hours_from"])
        elif is_switched:
            # Switched by hand before: a change of the task alone, which beat sees by this mark.
            PeriodicTasks.update_changed()
        switch_task(job.periodic_task, on=status == JobStatus.ACTIVE)
    if status != JobStatus.ACTIVE and waits:
        wait_for_started_fetches([job_id])
    if changed:
        log.info(f"job.{status}", job_id=str(job_id))
    return job
