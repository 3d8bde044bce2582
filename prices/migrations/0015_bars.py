"""Bars, and what they are made by: the transaction that stored a point, and an index of its own time."""

import django.db.models.functions.datetime
from django.apps.registry import Apps
from django.contrib.postgres.indexes import BrinIndex
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from psycopg.sql import SQL

import prices.database.fields
from prices.database.online_indexes import make_index

PRICES = ["open", "high", "low", "close"]


def make_point_indexes(_apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    with schema_editor.connection.cursor() as cursor:
        for name, on in {
            "observed": SQL("(symbol, provider, observed_at, id)"),
            "tx": SQL("USING brin (tx)"),
        }.items():
            make_index(cursor, table="price_points", index=f"price_points_{name}", suffix=name, on=on)


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("prices", "0014_growth")]

    operations = [
        # Writes no row anew: those that are there have this migration's transaction.
        migrations.AddField(
            "pricepoint",
            "tx",
            models.BigIntegerField(db_default=prices.database.fields.CurrentTransaction(), editable=False),
        ),
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunPython(make_point_indexes, migrations.RunPython.noop),
                migrations.RunSQL(
                    migrations.RunSQL.noop, "DROP INDEX price_points_observed; DROP INDEX price_points_tx"
                ),
            ],
            state_operations=[
                migrations.AddIndex(
                    "pricepoint",
                    models.Index(
                        fields=["symbol", "provider", "observed_at", "id"], name="price_points_observed"
                    ),
                ),
                migrations.AddIndex("pricepoint", BrinIndex(fields=["tx"], name="price_points_tx")),
            ],
        ),
        migrations.CreateModel(
            name="BarProgress",
            fields=[
                (
                    "id",
                    models.PositiveSmallIntegerField(default=1, primary_key=True, serialize=False),
                ),
                ("position", models.BigIntegerField()),
                ("read_at", models.DateTimeField()),
                ("hours_until", models.DateTimeField()),
                ("backfill_from", models.UUIDField(null=True)),
            ],
            options={
                "db_table": "bar_progress",
                "constraints": [
                    models.CheckConstraint(condition=models.Q(("id", 1)), name="bar_progress_one_row")
                ],
            },
        ),
        migrations.CreateModel(
            name="PriceBar",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "symbol",
                        "interval",
                        "start",
                        "provider",
                        "currency",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("symbol", models.TextField()),
                (
                    "interval",
                    models.TextField(choices=[("1m", "Minute"), ("1h", "Hour"), ("1d", "Day")]),
                ),
                ("start", models.DateTimeField()),
                ("provider", models.TextField()),
                ("currency", models.TextField(blank=True)),
                *((name, prices.database.fields.ExactDecimalField()) for name in PRICES),
                ("samples", models.PositiveIntegerField(help_text="Different times of the provider.")),
                ("first_observed_at", models.DateTimeField()),
                ("last_observed_at", models.DateTimeField()),
                ("revision", models.PositiveIntegerField(default=1)),
                (
                    "changed_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
            ],
            options={
                "db_table": "price_bars",
                "indexes": [models.Index(fields=["interval", "start"], name="price_bars_interval_start")],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("interval__in", ["1m", "1h", "1d"])),
                        name="price_bars_interval_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("samples__gte", 1)), name="price_bars_has_samples"
                    ),
                ],
            },
        ),
    ]
