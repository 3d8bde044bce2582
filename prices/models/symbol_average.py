"""symbol_averages: the 5-point moving average of each symbol and currency at each of its points."""

from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models import F, Q, Value
from django.db.models.functions import Coalesce, Now

from prices.database.fields import CurrentTransaction, ExactDecimalField, price_is_sound

WINDOW_POINTS = 5


class SymbolAverage(models.Model):
    """The mean of a point and its four predecessors by event id, exact; null before the fifth point.

    Predecessors are those of the same symbol and currency: prices in pence say nothing of prices in pounds.
    No currency is one of its own.
    """

    event_id = models.UUIDField(primary_key=True, editable=False)
    symbol = models.TextField()
    price = ExactDecimalField()
    currency = models.TextField(null=True)  # noqa: DJ001 - null: the provider does not say
    average = ExactDecimalField(null=True)
    window_size = models.PositiveSmallIntegerField(help_text="Points in the window, 1 to 5.")
    provider = models.TextField()
    observed_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=Now())
    tx = models.BigIntegerField(db_default=CurrentTransaction())

    class Meta:
        db_table = "symbol_averages"
        constraints = [
            models.CheckConstraint(condition=price_is_sound("price"), name="symbol_averages_price_sound"),
            models.CheckConstraint(
                condition=Q(average__isnull=True, window_size__range=(1, WINDOW_POINTS - 1))
                | Q(average__isnull=False, window_size=WINDOW_POINTS),
                name="symbol_averages_full_window",
            ),
        ]
        indexes = [
            models.Index(F("symbol"), F("event_id"), name="symbol_averages_symbol_event"),
            # Null is not equal to itself, so no index finds it among the currencies.
            models.Index(
                F("symbol"),
                Coalesce("currency", Value("")),
                F("event_id"),
                name="symbol_averages_window",
            ),
            BrinIndex(fields=["tx"], name="symbol_averages_tx"),
        ]

    def __str__(self) -> str:
        return f"{self.symbol} {self.average if self.average is not None else 'no average yet'}"
