"""beat_terms: when which beat led. The last row is the lease; all together tell when none led."""

from django.db import models


class BeatTerm(models.Model):
    """A time in which one beat, and no other, sent what was due; by the clock of the database.

    It led from `began_at` to `renewed_at`, and no other may lead before `until`.

    A row with `clock_ahead_s` is no lease. It was written when that clock was found set back by so many
    seconds, and tells since when, by the clock as it is now, beat had led by the clock that was ahead.
    """

    holder = models.TextField(help_text="Host and process.")
    began_at = models.DateTimeField()
    renewed_at = models.DateTimeField()
    until = models.DateTimeField()
    clock_ahead_s = models.FloatField(null=True)

    class Meta:
        db_table = "beat_terms"
        indexes = [models.Index(fields=["renewed_at"], name="beat_terms_renewed_at")]

    def __str__(self) -> str:
        return f"{self.holder} from {self.began_at:%Y-%m-%d %H:%M:%S} to {self.renewed_at:%H:%M:%S}"
