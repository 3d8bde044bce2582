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
from psycopg.sql import SQL, Identifier

ROWS_AT_ONCE = 10_000

INDEX = "symbol_averages_window"
COLUMNS = SQL("(symbol, coalesce(currency, ''), event_id)")
PARTITIONS = "SELECT relid::text FROM pg_partition_tree('symbol_averages') WHERE isleaf"
IS_BROKEN = "SELECT NOT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)"
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


def make_index(_apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Make the index of each partition beside its writers, which CREATE INDEX on the whole table does not."""
    with schema_editor.connection.cursor() as cursor:
        # Partitions that are made from now on have it from the table.
        cursor.execute(
            SQL("CREATE INDEX IF NOT EXISTS {} ON ONLY symbol_averages {}").format(Identifier(INDEX), COLUMNS)
        )
        cursor.execute(PARTITIONS)
        for (partition,) in cursor.fetchall():
            cursor.execute(
                "SELECT count(*) > 0 FROM pg_inherits JOIN pg_index ON indexrelid = inhrelid"
                " WHERE inhparent = %s::regclass AND indrelid = %s::regclass",
                [INDEX, partition],
            )
            if cursor.fetchone() == (True,):
                continue
            name = Identifier(f"{partition}_window")
            cursor.execute(IS_BROKEN, [f"{partition}_window"])
            if cursor.fetchone() == (True,):
                cursor.execute(SQL("DROP INDEX {}").format(name))
            cursor.execute("SHOW lock_timeout")
            (lock_timeout,) = cursor.fetchone()
            # It waits for transactions to end, and nobody behind it.
            cursor.execute("SET lock_timeout = 0")
            cursor.execute(
                SQL("CREATE INDEX CONCURRENTLY IF NOT EXISTS {} ON {} {}").format(
                    name, Identifier(partition), COLUMNS
                )
            )
            cursor.execute(SQL("SET lock_timeout = {}").format(lock_timeout))
            cursor.execute(SQL("ALTER INDEX {} ATTACH PARTITION {}").format(Identifier(INDEX), name))


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
                migrations.RunPython(make_index, migrations.RunPython.noop),
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
