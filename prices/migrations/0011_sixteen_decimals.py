from decimal import Decimal

from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models
from django.db.models.lookups import LessThanOrEqual

import prices.database.fields

TABLES = {"pricepoint": "price_points", "symbolaverage": "symbol_averages"}


IS_SOUND = (
    models.Q(price__gt=0)
    & models.Q(price__lt=Decimal(10) ** 12)
    & models.Q(LessThanOrEqual(prices.database.fields.Scale("price"), 16))
)


class Migration(migrations.Migration):
    """Prices may have 16 decimals: some coins are worth less than 0.00001.

    Rows that exist are looked at by the next migration, beside whoever reads and writes.
    """

    dependencies = [("prices", "0010_fallback_requests")]

    operations = [
        operation
        for model, table in TABLES.items()
        for operation in (
            migrations.RemoveConstraint(model, f"{table}_price_sound"),
            AddConstraintNotValid(
                model, models.CheckConstraint(condition=IS_SOUND, name=f"{table}_price_sound")
            ),
        )
    ]
