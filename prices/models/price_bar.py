"""price_bars: open, high, low and close of a symbol's samples in a minute, an hour or a day."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from prices.database.fields import ExactDecimalField


class BarInterval(models.TextChoices):
    """How long a stored bar is."""

    MINUTE = "1m"
    HOUR = "1h"
    DAY = "1d"


class PriceBar(models.Model):
    """The samples of one provider in one currency (empty: not told), by the provider's time.

    `start` is in UTC; of a day it is the midnight of the session's date. Bars stay when the points go that
    they were made of. `revision` is 1, and higher by one for each change of a bar that had ended.
    """

    pk = models.CompositePrimaryKey("symbol", "interval", "start", "provider", "currency")
    symbol = models.TextField()
    interval = models.TextField(choices=BarInterval.choices)
    start = models.DateTimeField()
    provider = models.TextField()
    currency = models.TextField(blank=True)
    open = ExactDecimalField()
    high = ExactDecimalField()
    low = ExactDecimalField()
    close = ExactDecimalField()
    samples = models.PositiveIntegerField(help_text="Different times of the provider.")
    first_observed_at = models.DateTimeField()
    last_observed_at = models.DateTimeField()
    revision = models.PositiveIntegerField(default=1)
    changed_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "price_bars"
        constraints = [
            models.CheckConstraint(
                condition=Q(interval__in=BarInterval.values), name="price_bars_interval_known"
            ),
            models.CheckConstraint(condition=Q(samples__gte=1), name="price_bars_has_samples"),
        ]
        indexes = [models.Index(fields=["interval", "start"], name="price_bars_interval_start")]

    def __str__(self) -> str:
        return f"{self.symbol} {self.interval} {self.start:%Y-%m-%d %H:%M} {self.close:f}"


class BarProgress(models.Model):
    """Up to where points have become bars: one row.

    Every point of a transaction before `position` is in its minute's bar; `read_at` is when that was so.
    Hours and days are made of the minutes up to `hours_until`. Until all points of before the first run are
    read, `backfill_from` is the id of the next one.
    """

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    position = models.BigIntegerField()
    read_at = models.DateTimeField()
    hours_until = models.DateTimeField()
    backfill_from = models.UUIDField(null=True)

    class Meta:
        db_table = "bar_progress"
        constraints = [models.CheckConstraint(condition=Q(id=1), name="bar_progress_one_row")]

    def __str__(self) -> str:
        return f"up to {self.read_at:%Y-%m-%d %H:%M:%S}"
