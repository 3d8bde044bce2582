"""Celery tasks: each calls one function."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from celery import Task, shared_task

from prices.bars import making
from prices.clock import database_now
from prices.jobs.idempotency import delete_expired_keys
from prices.jobs.services import provider_of_queue
from prices.ledger import accounting
from prices.ledger import runs as claims
from prices.maintenance import expired_messages, merging, partitions, retention
from prices.maintenance.task_errors import without_database_errors
from prices.polling.handover import hand_over, take_over
from prices.polling.poll import claim_and_poll
from prices.publishing import outbox


@shared_task(bind=True)
@without_database_errors
def poll_job(self: Task[[str], None], job_id: str) -> None:
    """Poll the job's current slot, unless that was done before."""
    hand_over(claim_and_poll([UUID(job_id)], at=_provider_asked_by(self)))


@shared_task(bind=True)
@without_database_errors
def poll_jobs(self: Task[[list[str]], None], job_ids: list[str]) -> None:
    """Poll the current slots of jobs that are due together."""
    ids = [UUID(job_id) for job_id in job_ids]
    hand_over(claim_and_poll(ids, at=_provider_asked_by(self)))


@shared_task
@without_database_errors
def go_on_polling(provider: str, messages: Sequence[dict[str, Any]]) -> None:
    """Go on with slots that another provider did not serve, or not in full."""
    hand_over(take_over(provider, messages))


@shared_task
@without_database_errors
def sweep_outbox() -> None:
    """Publish the points that stayed behind."""
    outbox.sweep()


@shared_task
@without_database_errors
def abandon_overdue_runs() -> None:
    """Mark claims whose worker died."""
    claims.abandon_overdue_runs(now=database_now())


@shared_task
@without_database_errors
def account_slots() -> None:
    """Account for the slots that can no longer be claimed."""
    accounting.account_slots()


@shared_task
@without_database_errors
def make_bars() -> None:
    """Make bars of the points that have come."""
    making.make_bars()


@shared_task
@without_database_errors
def make_partitions() -> None:
    """Make the partitions of the coming days."""
    partitions.make_partitions(database_now().date())


@shared_task
@without_database_errors
def merge_partitions() -> None:
    """Make one partition of the days of a past month, where days have their own."""
    merging.merge_days(database_now().date())


@shared_task
@without_database_errors
def drop_expired_messages() -> None:
    """Drop messages that no worker took in time."""
    expired_messages.drop_expired_messages(now=database_now())


@shared_task
@without_database_errors
def drop_old_runs() -> None:
    """Drop what is known of polls that were due over a week ago."""
    retention.drop_old_runs(now=database_now())


@shared_task
@without_database_errors
def delete_old_batches() -> None:
    """Forget which averages were written together over a week ago."""
    retention.delete_old_batches(now=database_now())


@shared_task
@without_database_errors
def delete_expired_idempotency_keys() -> None:
    """Forget what requests were answered over a day ago."""
    delete_expired_keys(now=database_now())


def _provider_asked_by(task: Task[Any, Any]) -> str | None:
    # Called in place and not by a worker, a task has no queue.
    delivery = task.request.delivery_info or {}
    return provider_of_queue(delivery.get("routing_key"))
