"""symbol_averages: the 5-point moving average of each symbol and currency at each of its points.

average_batches: which of its rows each transaction has written, for readers of the stream.
"""

from django.contrib.postgres.fields import ArrayField
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
    # Taken only once the symbol is locked, so it rises with each change of a row: the row's version.
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
        ]

    def __str__(self) -> str:
        return f"{self.symbol} {self.average if self.average is not None else 'no average yet'}"


class AverageBatch(models.Model):
    """What a transaction has written: one row, or several where it is much.

    The rows that it added have ids from `first_id` to `last_id`, where others' may lie as well, or are listed
    in `added`; `changed` lists rows that were stored before. All of them had the transaction's `tx`; where
    one has another one now, that one has changed it again. `rows` is how many this row is of.

    The first row is of the migration that made the table, later the last of before what is kept: what was
    written in transactions after it is known.
    """

    pk = models.CompositePrimaryKey("tx", "number")
    tx = models.BigIntegerField(db_default=CurrentTransaction())
    number = models.PositiveSmallIntegerField()
    first_id = models.UUIDField(null=True)
    last_id = models.UUIDField(null=True)
    added = ArrayField(models.UUIDField())
    changed = ArrayField(models.UUIDField())
    rows = models.PositiveIntegerField()
    written_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "average_batches"
        constraints = [
            models.CheckConstraint(
                condition=Q(first_id=None, last_id=None) | Q(first_id__isnull=False, last_id__isnull=False),
                name="average_batches_whole_range",
            ),
        ]

    def __str__(self) -> str:
        return f"transaction {self.tx}: {self.rows} rows"
