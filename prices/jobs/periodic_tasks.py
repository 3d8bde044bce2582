"""The PeriodicTask of a job, which follows its row."""

from typing import Any

from django.db import connection
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask


def switch_task(task: PeriodicTask, *, on: bool) -> None:
    """Enable or disable the task."""
    if task.enabled != on:
        change_task(task, enabled=on, last_run_at=task.last_run_at if on else None)


def change_task(task: PeriodicTask, /, **changes: Any) -> None:
    """Change the task as its `save` would, but for the mark of a change (see `create_job`)."""
    changes["date_changed"] = timezone.now()
    PeriodicTask.objects.filter(pk=task.pk).update(**changes)
    for name, value in changes.items():
        setattr(task, name, value)


def interval_schedule(interval: int) -> IntervalSchedule:
    """Return the schedule of an interval in seconds; there is one for all jobs that have it."""
    schedules = IntervalSchedule.objects.filter(every=interval, period=IntervalSchedule.SECONDS)
    known = schedules.first()
    if known is None:
        # The table has no unique constraint: two creators of a new interval would each add a row.
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext('interval schedules'))")
        known = schedules.first()
    if known is None:
        (known,) = IntervalSchedule.objects.bulk_create(
            [IntervalSchedule(every=interval, period=IntervalSchedule.SECONDS)]
        )
    return known
