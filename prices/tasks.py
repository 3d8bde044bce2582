"""Celery tasks: each calls one function."""

from uuid import UUID

from celery import shared_task
from django.utils import timezone

from prices import outbox, partitions, polling


@shared_task
def poll_job(job_id: str) -> None:
    """Poll the job's current slot, unless that was done before."""
    polling.poll_job(UUID(job_id), now=timezone.now())


@shared_task
def sweep_outbox() -> None:
    """Publish the points that stayed behind."""
    outbox.sweep()


@shared_task
def abandon_overdue_runs() -> None:
    """Mark claims whose worker died."""
    polling.abandon_overdue_runs(now=timezone.now())


@shared_task
def make_partitions() -> None:
    """Make the partitions of the coming days."""
    partitions.make_partitions(timezone.now().date())
