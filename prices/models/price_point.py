"""price_points: one row for each price that a provider gave; its id is the event's id."""

from collections.abc import Iterable
from datetime import UTC, datetime

from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models import Q

from prices.database.fields import CurrentTransaction, ExactDecimalField, UuidV7, price_is_sound

_NEVER = datetime.min.replace(tzinfo=UTC)


class Precision(models.TextChoices):
    """How exactly `observed_at` is known."""

    SECOND = "second"
    DAY = "day"
    UNKNOWN = "unknown"


class PricePoint(models.Model):
    """A stored quote. `published_at` null means that Kafka has yet to confirm it: the outbox.

    `tx` is the transaction that stored it: what a reader of the table can resume from.
    """

    id = models.UUIDField(primary_key=True, db_default=UuidV7(), editable=False)
    symbol = models.TextField()
    provider = models.TextField()
    price = ExactDecimalField()
    currency = models.TextField(null=True)  # noqa: DJ001 - null: the provider does not say
    observed_at = models.DateTimeField(null=True, help_text="When the price was true, by the provider.")
    precision = models.TextField(choices=Precision.choices)
    received_at = models.DateTimeField(help_text="When the answer reached this service.")
    raw = models.UUIDField(help_text="The raw answer, which is kept for a shorter time.")
    published_at = models.DateTimeField(
        null=True, help_text="When Kafka confirmed it; empty: still to publish."
    )
    tx = models.BigIntegerField(db_default=CurrentTransaction(), editable=False)

    class Meta:
        db_table = "price_points"
        constraints = [
            models.CheckConstraint(condition=price_is_sound("price"), name="price_points_price_sound"),
            models.CheckConstraint(
                condition=Q(precision__in=Precision.values), name="price_points_precision_known"
            ),
            models.CheckConstraint(
                condition=Q(observed_at__isnull=True, precision="unknown")
                | Q(observed_at__isnull=False, precision__in=["second", "day"]),
                name="price_points_precision_of_time",
            ),
        ]
        indexes = [
            models.Index(fields=["symbol", "id"], name="price_points_symbol_id"),
            models.Index(fields=["symbol", "provider", "id"], name="price_points_symbol_provider"),
            models.Index(fields=["symbol", "provider", "observed_at", "id"], name="price_points_observed"),
            models.Index(
                fields=["id"], condition=Q(published_at__isnull=True), name="price_points_unpublished"
            ),
            BrinIndex(fields=["tx"], name="price_points_tx"),
        ]

    def __str__(self) -> str:
        return f"{self.symbol} {self.price:f} ({self.provider})"

    @property
    def known_time(self) -> datetime | None:
        """When the price was true at the latest, None where that is not known."""
        return known_time(self.observed_at, precision=self.precision, received_at=self.received_at)


def known_time(
    observed_at: datetime | None, *, precision: str, received_at: datetime | None
) -> datetime | None:
    """Return when a price was true at the latest, None where that is not known.

    A price of a day that was not over when it came has the time of its receipt, for want of a better one: it
    may be of any moment of the day, and so has no age.
    """
    by_running_day = precision == Precision.DAY and observed_at == received_at
    return None if by_running_day else observed_at


def newest_first(points: Iterable[PricePoint]) -> list[PricePoint]:
    """Put points in order by the provider's time; those of which it is not known are last."""
    return sorted(points, key=lambda point: (point.known_time or _NEVER, point.id), reverse=True)
