"""poll_runs: one row for each slot that a worker claimed, and what became of it."""

from django.db import models
from django.db.models import Q

from prices.models.poll_job import PollJob


class RunState(models.TextChoices):
    """The life of a claimed slot."""

    CLAIMED = "claimed"
    STORED = "stored"
    SHARED = "shared"
    FAILED = "failed"
    SKIPPED = "skipped"
    ABANDONED = "abandoned"


class PollRun(models.Model):
    """A claimed slot of a job. The id is made of the slot and the job, so a second claim conflicts."""

    id = models.UUIDField(primary_key=True, editable=False)
    # No database constraint: it would lock the job's row at each claim, and rows of jobs are never deleted.
    job = models.ForeignKey(
        PollJob, on_delete=models.PROTECT, related_name="runs", db_constraint=False, db_index=False
    )
    due_at = models.DateTimeField()
    state = models.TextField(choices=RunState.choices, default=RunState.CLAIMED)
    reason = models.TextField(blank=True)
    points = models.PositiveIntegerField(default=0, help_text="Prices that answered the slot.")
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "poll_runs"
        constraints = [
            models.CheckConstraint(condition=Q(state__in=RunState.values), name="poll_runs_state_known"),
            models.CheckConstraint(
                condition=Q(state="claimed", finished_at__isnull=True)
                | (~Q(state="claimed") & Q(finished_at__isnull=False)),
                name="poll_runs_finished_unless_claimed",
            ),
        ]
        indexes = [
            models.Index(fields=["job", "id"], name="poll_runs_job_id"),
            models.Index(fields=["id"], condition=Q(state="claimed"), name="poll_runs_claimed"),
        ]

    def __str__(self) -> str:
        return f"{self.due_at:%Y-%m-%d %H:%M:%S} {self.state}"
