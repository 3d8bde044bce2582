"""Raw answers are found by symbol and by run, and jobs that go on without those that were stopped."""

from django.apps.registry import Apps
from django.contrib.postgres.indexes import GinIndex
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import Q
from psycopg.sql import SQL

from prices.database.online_indexes import AddIndexOnline, make_index


def make_raw_indexes(_apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    with schema_editor.connection.cursor() as cursor:
        for name, on in {
            "symbols": SQL("USING gin (symbols)"),
            "poll": SQL("(poll) WHERE poll IS NOT NULL"),
        }.items():
            make_index(cursor, table="raw_market_data", index=f"raw_market_data_{name}", suffix=name, on=on)


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("prices", "0013_clocks")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunPython(make_raw_indexes, migrations.RunPython.noop),
                migrations.RunSQL(
                    migrations.RunSQL.noop,
                    "DROP INDEX raw_market_data_symbols; DROP INDEX raw_market_data_poll",
                ),
            ],
            state_operations=[
                migrations.AddIndex(
                    "rawmarketdata", GinIndex(fields=["symbols"], name="raw_market_data_symbols")
                ),
                migrations.AddIndex(
                    "rawmarketdata",
                    models.Index(
                        fields=["poll"], condition=Q(poll__isnull=False), name="raw_market_data_poll"
                    ),
                ),
            ],
        ),
        AddIndexOnline(
            "polljob",
            models.Index(fields=["changed"], condition=~Q(status="stopped"), name="poll_jobs_going_on"),
        ),
    ]
