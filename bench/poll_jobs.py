"""Poll jobs for the scheduler's benchmark: many at once, and one created and one stopped each second."""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from random import Random
from uuid import UUID

from django.db import connection, transaction
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from prices.database.uuid7 import new_ids
from prices.jobs.services import create_job, periodic_task_fields, stop_job
from prices.ledger.grid import phase_of, slot_at
from prices.models import PollJob
from providers.keys import SIMULATED

BATCH = 5_000
_EMPTY = """
    TRUNCATE django_celery_beat_periodictask, django_celery_beat_intervalschedule, poll_jobs, poll_runs,
             raw_market_data, price_points, beat_terms CASCADE
"""


def forget_jobs() -> None:
    """Empty the tables of jobs and of what they led to."""
    with connection.cursor() as cursor:
        cursor.execute(_EMPTY)
        cursor.execute("CHECKPOINT")


def make_jobs(intervals: Sequence[int]) -> list[PollJob]:
    """Make an active job of each interval (seconds), each with a symbol of its own.

    They look as if they had been polled in time so far: stock beat goes on from there as well.
    """
    now = timezone.now()
    jobs = [
        PollJob(
            id=job_id,
            symbols=[f"SIM-JOB-{number}"],
            interval=interval,
            provider=SIMULATED,
            last_run_at=now,
            last_success_at=now,
            accounted_until=now,
        )
        for number, (job_id, interval) in enumerate(zip(new_ids(len(intervals)), intervals, strict=True))
    ]
    with transaction.atomic():
        schedules = {
            interval: IntervalSchedule.objects.create(every=interval, period=IntervalSchedule.SECONDS)
            for interval in sorted(set(intervals))
        }
        tasks = [_task(job, schedules[job.interval], now=now) for job in jobs]
        PeriodicTask.objects.bulk_create(tasks, BATCH)
        for job, task in zip(jobs, tasks, strict=True):
            job.periodic_task = task
        PollJob.objects.bulk_create(jobs, BATCH)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE poll_jobs, django_celery_beat_periodictask")
    return jobs


def _task(job: PollJob, schedule: IntervalSchedule, *, now: datetime) -> PeriodicTask:
    phase = phase_of(job.provider, job.interval, job.symbols)
    return PeriodicTask(
        name=f"poll job {job.id}",
        interval=schedule,
        last_run_at=slot_at(now, job.interval, phase),
        **periodic_task_fields(job),
    )


class Changes:
    """Creates a job and stops another one each second, from a thread of its own, between `with` and its end.

    `created` has when each new job's creation was answered, `stopped` when each stop was asked for.
    """

    def __init__(self, jobs: Sequence[PollJob], *, interval: Callable[[], int]) -> None:
        self.jobs: list[PollJob] = []
        self.created: dict[UUID, datetime] = {}
        self.stopped: dict[UUID, datetime] = {}
        self._victims = Random(1).sample(list(jobs), len(jobs))
        self._interval = interval
        self._over = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="changes")

    def __enter__(self) -> "Changes":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        began = time.monotonic()
        try:
            for number, victim in enumerate(self._victims):
                if self._over.wait(max(0.0, began + number - time.monotonic())):
                    break
                self._change(number, victim)
        except Exception as error:  # noqa: BLE001 - raised again at the end of `with`
            self._error = error
        finally:
            connection.close()

    def _change(self, number: int, victim: PollJob) -> None:
        job = create_job(symbols=[f"SIM-NEW-{number}"], interval=self._interval(), provider=SIMULATED)
        self.created[job.id] = timezone.now()
        self.jobs.append(job)
        self.stopped[victim.id] = timezone.now()
        stop_job(victim.id)


def intervals_between(shortest: int, longest: int, *, count: int) -> list[int]:
    """Return so many intervals, each of the seconds between these equally often."""
    span = longest - shortest + 1
    return [shortest + number % span for number in range(count)]


def due_slots(job: PollJob, *, begin: datetime, end: datetime) -> list[datetime]:
    """Return the slots of the job's grid from `begin` on, before `end`."""
    step = timedelta(seconds=job.interval)
    phase = phase_of(job.provider, job.interval, job.symbols)
    first = slot_at(begin, job.interval, phase)
    first = first if first >= begin else first + step
    count = max(0, -((first - end) // step))
    return [first + number * step for number in range(count)]
