"""poll_jobs: what users asked to be polled. The truth about a job; its PeriodicTask follows."""

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Coalesce, Now
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from prices.database.fields import CurrentTransaction, UuidV7
from prices.models.api_client import ApiClient
from providers.rate_limits.limits import time_in_words

MAX_SYMBOLS = 100
MIN_INTERVAL_S = 1
MAX_INTERVAL_S = 86_400


class JobStatus(models.TextChoices):
    """What a job does: it polls, it waits to be resumed, or it has ended for good."""

    ACTIVE = "active"
    PAUSED = "paused"
    STOPPED = "stopped"


class PollJob(models.Model):
    """A list of symbols that is polled each `interval` seconds.

    `provider` null leaves the choice to the service, which keeps `served_by` until that one fails. Rows stay,
    since runs, gaps and raw answers refer to them: a stopped job that its user deletes has `deleted_at`, and
    is shown no more.

    A job whose `client` is null is everybody's: it was created without a key.

    `changed` is the transaction that last changed what is polled, how often, by whom, or whether at all; a
    trigger writes it, so that nobody can forget to. Each slot that was due up to `accounted_until` has its
    run or lies in a gap, and can no longer be claimed.

    With `market_hours`, slots that are due after `market_hours_from` are polled in the hours of the symbols'
    markets alone; null: the first price of what is polled now has not come yet.
    """

    id = models.UUIDField(primary_key=True, db_default=UuidV7(), editable=False)
    symbols = ArrayField(models.TextField())
    interval = models.PositiveIntegerField(help_text="Seconds between polls.")
    market_hours = models.BooleanField(
        default=False, db_default=False, help_text="Poll each symbol in the hours of its market alone."
    )
    market_hours_from = models.DateTimeField(null=True, blank=True, editable=False)
    provider = models.TextField(  # noqa: DJ001 - null: the service chooses
        null=True, blank=True, help_text="Empty: the service chooses."
    )
    served_by = models.TextField(  # noqa: DJ001 - null: nobody yet
        null=True, blank=True, help_text="Who is asked where no provider is named: who served last."
    )
    status = models.TextField(choices=JobStatus.choices, default=JobStatus.ACTIVE)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    last_run_at = models.DateTimeField(null=True, blank=True)
    last_success_at = models.DateTimeField(null=True, blank=True)
    last_error = models.TextField(blank=True)
    failures = models.PositiveIntegerField(default=0, help_text="Polls that failed since the last good one.")
    changed = models.BigIntegerField(db_default=CurrentTransaction(), editable=False)
    accounted_until = models.DateTimeField(db_default=Now(), editable=False)
    deleted_at = models.DateTimeField(null=True, blank=True, editable=False)
    client = models.ForeignKey(
        ApiClient,
        null=True,
        blank=True,
        editable=False,
        on_delete=models.PROTECT,
        related_name="jobs",
        db_index=False,
    )
    periodic_task = models.OneToOneField(PeriodicTask, on_delete=models.PROTECT, related_name="poll_job")

    class Meta:
        db_table = "poll_jobs"
        constraints = [
            models.CheckConstraint(
                condition=Q(interval__range=(MIN_INTERVAL_S, MAX_INTERVAL_S)), name="poll_jobs_interval_range"
            ),
            models.CheckConstraint(condition=Q(status__in=JobStatus.values), name="poll_jobs_status_known"),
            models.CheckConstraint(
                condition=Q(symbols__len__range=(1, MAX_SYMBOLS)), name="poll_jobs_symbols_count"
            ),
            models.CheckConstraint(
                condition=Q(deleted_at=None) | Q(status=JobStatus.STOPPED),
                name="poll_jobs_deleted_are_stopped",
            ),
        ]
        indexes = [
            models.Index(fields=["id"], condition=Q(deleted_at=None), name="poll_jobs_kept_id"),
            models.Index(fields=["client", "id"], name="poll_jobs_client_id"),
            models.Index(fields=["status", "id"], name="poll_jobs_status_id"),
            models.Index(fields=["changed"], name="poll_jobs_changed"),
            models.Index(fields=["changed"], condition=~Q(status="stopped"), name="poll_jobs_going_on"),
            models.Index(fields=["id"], condition=~Q(status="stopped"), name="poll_jobs_going_on_id"),
            models.Index(Coalesce("provider", "served_by"), F("id"), name="poll_jobs_provider_id"),
            GinIndex(fields=["symbols"], name="poll_jobs_symbols"),
        ]

    def __str__(self) -> str:
        more = f" and {len(self.symbols) - 3} more" if len(self.symbols) > 3 else ""
        hours = " in market hours" if self.market_hours else ""
        return f"{', '.join(self.symbols[:3])}{more} every {time_in_words(self.interval)}{hours}"
