"""Indexes made beside the writers of their tables, partitioned or not: for migrations."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.backends.utils import CursorWrapper
from django.db.migrations.state import ProjectState
from psycopg.sql import SQL, Composable, Identifier

_PARTITIONS = "SELECT relid::text FROM pg_partition_tree(%s) WHERE isleaf"
_IS_VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)"
_IS_ATTACHED = """
SELECT count(*) > 0 FROM pg_inherits JOIN pg_index ON indexrelid = inhrelid
WHERE inhparent = %s::regclass AND indrelid = %s::regclass
"""


class AddIndexOnline(AddIndexConcurrently):
    """Django's operation, however long transactions last; what was broken off before is made anew."""

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Make the index, unless it is there."""
        with schema_editor.connection.cursor() as cursor:
            if not _is_made(cursor, self.index.name):
                with _unlimited_waits(cursor):
                    super().database_forwards(app_label, schema_editor, from_state, to_state)


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
    if not _is_made(cursor, name):
        with _unlimited_waits(cursor):
            cursor.execute(
                SQL("CREATE INDEX CONCURRENTLY {} ON {} {}").format(
                    Identifier(name), Identifier(partition), on
                )
            )
    cursor.execute(SQL("ALTER INDEX {} ATTACH PARTITION {}").format(Identifier(index), Identifier(name)))


def _is_made(cursor: CursorWrapper, name: str) -> bool:
    """Return whether the index is there. One that was broken off before is dropped."""
    cursor.execute(_IS_VALID, [name])
    found = cursor.fetchone()
    if found == (False,):
        cursor.execute(SQL("DROP INDEX {}").format(Identifier(name)))
    return found == (True,)  # type: ignore[no-any-return]


@contextmanager
def _unlimited_waits(cursor: CursorWrapper) -> Iterator[None]:
    # CREATE INDEX CONCURRENTLY waits for transactions to end, and nobody behind it.
    cursor.execute("SHOW lock_timeout")
    (lock_timeout,) = cursor.fetchone()
    cursor.execute("SET lock_timeout = 0")
    try:
        yield
    finally:
        cursor.execute(SQL("SET lock_timeout = {}").format(lock_timeout))
