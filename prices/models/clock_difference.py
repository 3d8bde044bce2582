"""clock_differences: processes whose own clock differs from PostgreSQL's."""

from django.db import models


class ClockDifference(models.Model):
    """How far a process's clock was from PostgreSQL's when it last looked; no row where they agree."""

    process = models.TextField(primary_key=True, help_text="Name and host.")
    ahead_s = models.FloatField(help_text="Seconds ahead of PostgreSQL's clock; below 0: behind.")
    noted_at = models.DateTimeField()

    class Meta:
        db_table = "clock_differences"

    def __str__(self) -> str:
        return f"{self.process}: {self.ahead_s:+.1f} s"
