"""Averages go by symbol and currency: each row gets the currency of its point.

Made to run beside writers, in short transactions of its own, and to be run again where it was broken off.
Averages that mixed currencies stay until `rebuild_averages` corrects them; so do rows whose points are no
longer there, or that a consumer of before writes meanwhile.
"""

from uuid import UUID

from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import F, Value
from django.db.models.functions import Coalesce
from psycopg.sql import SQL

from prices.database.online_indexes import make_index

ROWS_AT_ONCE = 10_000

INDEX = "symbol_averages_window"
COLUMNS = SQL("(symbol, coalesce(currency, ''), event_id)")
END = """
SELECT event_id FROM (
    SELECT event_id FROM symbol_averages WHERE event_id > %s ORDER BY event_id LIMIT %s
) AS next ORDER BY event_id DESC LIMIT 1
"""
FILL = """
UPDATE symbol_averages AS stored SET currency = points.currency
FROM price_points AS points
WHERE points.id = stored.event_id AND stored.currency IS NULL AND points.currency IS NOT NULL
  AND stored.event_id > %(after)s AND stored.event_id <= %(end)s
  AND points.id > %(after)s AND points.id <= %(end)s
"""


def fill_currencies(_apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    with schema_editor.connection.cursor() as cursor:
        after = UUID(int=0)
        while True:
            cursor.execute(END, [after, ROWS_AT_ONCE])
            found = cursor.fetchone()
            if found is None:
                break
            cursor.execute(FILL, {"after": after, "end": found[0]})
            after = found[0]
        # What consumers remember of series without a currency is not so any more.
        cursor.execute("SELECT nextval('averages_epoch')")


def make_window_index(_apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    with schema_editor.connection.cursor() as cursor:
        make_index(cursor, table="symbol_averages", index=INDEX, suffix="window", on=COLUMNS)


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("prices", "0008_dead_letter_headers")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    "ALTER TABLE symbol_averages ADD COLUMN IF NOT EXISTS currency text NULL",
                    "ALTER TABLE symbol_averages DROP COLUMN currency",
                ),
                migrations.RunPython(fill_currencies, migrations.RunPython.noop),
                # Undone with the column.
                migrations.RunPython(make_window_index, migrations.RunPython.noop),
            ],
            state_operations=[
                migrations.AddField("symbolaverage", "currency", models.TextField(null=True)),
                migrations.AddIndex(
                    "symbolaverage",
                    models.Index(F("symbol"), Coalesce("currency", Value("")), F("event_id"), name=INDEX),
                ),
            ],
        ),
    ]
