"""Readers of the stream go by what each transaction has noted, and no longer by an index on tx."""

import django.contrib.postgres.fields
import django.db.models.functions.datetime
from django.db import migrations, models
from django.db.models import Q

import prices.database.fields


class Migration(migrations.Migration):
    dependencies = [("prices", "0021_jobs_of_clients")]

    operations = [
        migrations.CreateModel(
            "AverageBatch",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "tx", "number", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("tx", models.BigIntegerField(db_default=prices.database.fields.CurrentTransaction())),
                ("number", models.PositiveSmallIntegerField()),
                ("first_id", models.UUIDField(null=True)),
                ("last_id", models.UUIDField(null=True)),
                ("added", django.contrib.postgres.fields.ArrayField(models.UUIDField())),
                ("changed", django.contrib.postgres.fields.ArrayField(models.UUIDField())),
                ("rows", models.PositiveIntegerField()),
                ("written_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                "db_table": "average_batches",
                "constraints": [
                    models.CheckConstraint(
                        condition=Q(first_id=None, last_id=None)
                        | Q(first_id__isnull=False, last_id__isnull=False),
                        name="average_batches_whole_range",
                    )
                ],
            },
        ),
        # From here on it is known what was written.
        migrations.RunSQL(
            "INSERT INTO average_batches (number, added, changed, rows) VALUES (0, '{}', '{}', 0)",
            migrations.RunSQL.noop,
        ),
        # Its lock is waited for a moment at a time (prices/database/lock_waits.py), and held for a moment.
        migrations.RemoveIndex("symbolaverage", "symbol_averages_tx"),
    ]
