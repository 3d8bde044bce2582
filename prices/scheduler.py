"""The beat scheduler: django-celery-beat's, with poll jobs on their fixed grid."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from celery.schedules import schedstate, schedule
from django.db.models import QuerySet
from django_celery_beat.models import PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler, ModelEntry

from prices.heartbeat import touch_heartbeat
from prices.models import PollJob
from prices.slots import next_slot, phase_of


class GridSchedule(schedule):
    """Due at phase + k x interval, whenever the last run was: it cannot drift."""

    def __init__(
        self,
        interval: int,
        phase: timedelta,
        *,
        nowfun: Callable[[], datetime] | None = None,
    ) -> None:
        super().__init__(run_every=timedelta(seconds=interval), nowfun=nowfun or _utc_now)
        self.interval = interval
        self.phase = phase

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Tell whether a slot has come since `last_run_at`, and the seconds until the next one."""
        now = self.now()
        due = next_slot(last_run_at, self.interval, self.phase) <= now
        following = next_slot(now, self.interval, self.phase)
        return schedstate(is_due=due, next=(following - now).total_seconds())


def _utc_now() -> datetime:
    return datetime.now(UTC)


class PriceEntry(ModelEntry):  # type: ignore[misc]  # django-celery-beat has no types
    """A periodic task; a poll job's is due on the job's grid."""

    def __init__(self, model: PeriodicTask, app: Any = None) -> None:
        never_ran = model.last_run_at is None
        super().__init__(model, app=app)
        job: PollJob | None = getattr(model, "poll_job", None)
        if job is None:
            return
        self.schedule = GridSchedule(job.interval, phase_of(job.provider, job.interval, job.symbols))
        if never_ran:
            # A new or resumed job does not wait for its next slot, which may be a day away.
            self.last_run_at = model.last_run_at = _utc_now() - 2 * timedelta(seconds=job.interval)

    def save(self) -> None:
        """Write when the task last ran, and nothing else: a task switched off meanwhile stays off."""
        PeriodicTask.objects.filter(pk=self.model.pk, enabled=True).update(
            last_run_at=self.model.last_run_at, total_run_count=self.model.total_run_count
        )


class PriceScheduler(DatabaseScheduler):  # type: ignore[misc]  # django-celery-beat has no types
    """Beat's scheduler; its heartbeat tells that its loop turns."""

    Entry = PriceEntry

    def enabled_models_qs(self) -> QuerySet[PeriodicTask]:
        """Give the enabled tasks, each with its poll job where it has one."""
        tasks: QuerySet[PeriodicTask] = super().enabled_models_qs()
        return tasks.select_related("poll_job", "interval", "crontab", "solar", "clocked")

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send what is due; give the seconds until the next is."""
        touch_heartbeat("beat")
        seconds: float = super().tick(*args, **kwargs)
        return seconds
