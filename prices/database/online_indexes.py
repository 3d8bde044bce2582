"""Indexes of partitioned tables, made beside their writers: for migrations."""

from django.db.backends.utils import CursorWrapper
from psycopg.sql import SQL, Composable, Identifier

_PARTITIONS = "SELECT relid::text FROM pg_partition_tree(%s) WHERE isleaf"
_IS_BROKEN = "SELECT NOT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)"
_IS_ATTACHED = """
SELECT count(*) > 0 FROM pg_inherits JOIN pg_index ON indexrelid = inhrelid
WHERE inhparent = %s::regclass AND indrelid = %s::regclass
"""


def make_index(cursor: CursorWrapper, *, table: str, index: str, suffix: str, on: Composable) -> None:
    """Make the index of each partition beside its writers, which CREATE INDEX on the whole table does not.

    `on` is what follows the table's name. A partition's index has its name and the suffix. Not within a
    transaction; what was broken off before is made anew.
    """
    # Partitions that are made from now on have it from the table.
    cursor.execute(
        SQL("CREATE INDEX IF NOT EXISTS {} ON ONLY {} {}").format(Identifier(index), Identifier(table), on)
    )
    cursor.execute(_PARTITIONS, [table])
    for (partition,) in cursor.fetchall():
        cursor.execute(_IS_ATTACHED, [index, partition])
        if cursor.fetchone() != (True,):
            _make_of_partition(cursor, partition, index=index, name=f"{partition}_{suffix}", on=on)


def _make_of_partition(
    cursor: CursorWrapper, partition: str, *, index: str, name: str, on: Composable
) -> None:
    cursor.execute(_IS_BROKEN, [name])
    if cursor.fetchone() == (True,):
        cursor.execute(SQL("DROP INDEX {}").format(Identifier(name)))
    cursor.execute("SHOW lock_timeout")
    (lock_timeout,) = cursor.fetchone()
    # It waits for transactions to end, and nobody behind it.
    cursor.execute("SET lock_timeout = 0")
    cursor.execute(
        SQL("CREATE INDEX CONCURRENTLY IF NOT EXISTS {} ON {} {}").format(
            Identifier(name), Identifier(partition), on
        )
    )
    cursor.execute(SQL("SET lock_timeout = {}").format(lock_timeout))
    cursor.execute(SQL("ALTER INDEX {} ATTACH PARTITION {}").format(Identifier(index), Identifier(name)))
