"""The heap follows poll_jobs: what is new, changed, stopped, or switched off by hand."""

import time
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django_celery_beat.models import PeriodicTasks

from prices.jobs.services import provider_of, queue_of
from prices.ledger.grid import phase_of
from prices.ledger.market_hours import hours_of
from prices.models import JobStatus, PollJob
from prices.scheduling.due_heap import DueHeap, GroupKey
from prices.scheduling.job_changes import JobChanges
from providers.registry import get_provider

LOOK_EACH_S = 0.2
# Each save in django-celery-beat's admin leaves a mark; whoever writes to its tables leaves none.
SWITCHES_EACH_S = 30.0
_COLUMNS = (
    *("id", "symbols", "interval", "provider", "served_by", "status", "last_run_at", "changed"),
    *("market_hours", "market_hours_from", "periodic_task__enabled"),
)
_TWO_SYMBOLS = ("A", "B")


class JobSync:
    """Keeps a heap as the tables are. `refresh` raises what the database raises, and then looks again."""

    def __init__(self, heap: DueHeap) -> None:
        self._heap = heap
        self._changes = JobChanges(self._jobs_to_read)
        self._is_first = True
        self._switched_off: set[UUID] = set()
        self._mark: datetime | None = None
        self._looked_at = self._switches_at = float("-inf")

    def refresh(self, now: int) -> None:
        """Bring the heap up to date, at most each 0.2 s. `now`: ms since the epoch."""
        if time.monotonic() - self._looked_at < LOOK_EACH_S:
            return
        self._refresh_switches(now)
        for job in self._changes.read():
            self._apply(job, now)
        self._is_first = False
        self._looked_at = time.monotonic()

    def _jobs_to_read(self) -> QuerySet[Any]:
        # Whether a job is to be taken off matters once it is on the heap. Their rows stay: in time
        # those that were stopped are most of them.
        return _jobs().filter(status=JobStatus.ACTIVE) if self._is_first else _jobs()

    def _refresh_switches(self, now: int) -> None:
        """Follow what was switched off or on by hand, which changes no job."""
        mark: datetime | None = PeriodicTasks.last_change()
        if mark == self._mark and time.monotonic() - self._switches_at < SWITCHES_EACH_S:
            return
        off = PollJob.objects.filter(status=JobStatus.ACTIVE, periodic_task__enabled=False)
        switched_off = set(off.values_list("id", flat=True))
        # Read whole before anything is noted: what fails is done again.
        for job in list(_jobs().filter(id__in=self._switched_off ^ switched_off)):
            self._apply(job, now)
        self._switched_off, self._mark, self._switches_at = switched_off, mark, time.monotonic()

    def _apply(self, job: Any, now: int) -> None:
        job_id = str(job.id)
        if job.status != JobStatus.ACTIVE or not job.periodic_task__enabled:
            self._heap.remove(job_id)
            return
        # A job that is new or resumed does not wait for its next slot, which may be a day away.
        is_new = job.last_run_at is None if self._is_first else job_id not in self._heap
        self._heap.add(job_id, group_key_of(job), now=now, at_once=is_new)


def _jobs() -> QuerySet[Any]:
    return PollJob.objects.values_list(*_COLUMNS, named=True)


def group_key_of(job: Any) -> GroupKey:
    """Return the key by which a job is polled; it has the columns of a PollJob that say so."""
    provider = provider_of(job)
    phase = phase_of(job.provider, job.interval, job.symbols)
    hours = hours_of(job)
    return GroupKey(
        queue=queue_of(provider),
        kind=None if _answers_for_many(provider) else tuple(sorted(job.symbols)),
        interval=job.interval * 1000,
        phase=phase // timedelta(milliseconds=1),
        calendars=None if hours is None else hours.calendars,
    )


@lru_cache
def _answers_for_many(provider: str) -> bool:
    return len(get_provider(provider).plan(_TWO_SYMBOLS)) == 1
