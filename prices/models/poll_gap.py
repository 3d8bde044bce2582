"""poll_gaps: what was not polled, and why, as merged ranges of slots. Kept for good."""

from django.db import models
from django.db.models import F, Q

from prices.database.fields import UuidV7
from prices.models.poll_job import PollJob


class PollGap(models.Model):
    """A run of consecutive slots of a job that were not polled, for one reason."""

    id = models.UUIDField(primary_key=True, db_default=UuidV7(), editable=False)
    job = models.ForeignKey(PollJob, on_delete=models.PROTECT, related_name="gaps", db_index=False)
    from_due = models.DateTimeField()
    to_due = models.DateTimeField()
    slots = models.PositiveIntegerField()
    reason = models.TextField()

    class Meta:
        db_table = "poll_gaps"
        constraints = [
            models.CheckConstraint(condition=Q(slots__gte=1), name="poll_gaps_slots_positive"),
            models.CheckConstraint(condition=Q(to_due__gte=F("from_due")), name="poll_gaps_range_forward"),
            models.UniqueConstraint(fields=["job", "from_due"], name="poll_gaps_job_from_due"),
        ]

    def __str__(self) -> str:
        return f"{self.slots} slots from {self.from_due:%Y-%m-%d %H:%M:%S}: {self.reason}"
