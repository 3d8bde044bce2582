"""The partitioned tables are written in SQL; this holds them against the models beside it."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from psycopg.sql import SQL, Identifier

from prices.database import lock_waits
from prices.database.errors import DatabaseTrouble, database_trouble
from prices.maintenance.partitions import PARTITIONED_TABLES
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db
MADE_BY_POSTGRESQL = ("_pkey", "_check", "_not_null")


@pytest.mark.parametrize("table", PARTITIONED_TABLES)
def test_table_has_the_columns_of_its_model(table: str) -> None:
    model = next(
        model for model in apps.get_app_config("prices").get_models() if model._meta.db_table == table
    )
    expected = {
        field.column: (str(field.db_type(connection)), field.null) for field in model._meta.concrete_fields
    }
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT attname, format_type(atttypid, atttypmod), NOT attnotnull FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0",
            [table],
        )
        found = {name: (kind, null) for name, kind, null in cursor.fetchall()}
    assert found == expected


@pytest.mark.parametrize("table", PARTITIONED_TABLES)
def test_table_has_the_constraints_and_indexes_of_its_model(table: str) -> None:
    model = next(
        model for model in apps.get_app_config("prices").get_models() if model._meta.db_table == table
    )
    expected = {item.name for item in [*model._meta.constraints, *model._meta.indexes]}
    with connection.cursor() as cursor:
        found = set(connection.introspection.get_constraints(cursor, table))
    assert expected <= found
    assert {name for name in found - expected if not name.endswith(MADE_BY_POSTGRESQL)} == set()


@contextmanager
def reader_of(table: str) -> Iterator[psycopg.Connection]:
    """Yield a session that has read a table, and has not ended its transaction."""
    with psycopg.connect(**connection.get_connection_params()) as session:
        session.execute(SQL("SELECT FROM {}").format(Identifier(table)))
        yield session


@pytest.fixture
def last_to_apply() -> Iterator[None]:
    """Leave the last migration, which changes beat_terms, to be applied."""
    call_command("migrate", "prices", "0012", verbosity=0)
    yield
    call_command("migrate", verbosity=0)


def is_applied() -> bool:
    executor = MigrationExecutor(connection)
    return not executor.migration_plan(executor.loader.graph.leaf_nodes())


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("last_to_apply")
def test_migration_names_who_holds_its_lock_and_nobody_queues_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lock_waits, "PATIENCE_S", 2.0)
    with reader_of("beat_terms") as first, ThreadPoolExecutor() as pool:
        migrating = pool.submit(migrate_in_thread)
        while not migrating.done():
            with reader_of("beat_terms") as second:
                second.execute("SET statement_timeout = '1s'")
                second.execute("SELECT FROM beat_terms")
        with pytest.raises(CommandError, match=rf"session {first.info.backend_pid} \(.* idle in transaction"):
            migrating.result()
        assert not is_applied()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("last_to_apply")
def test_migration_goes_on_once_its_lock_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    has_failed = threading.Event()

    def note_trouble(error: BaseException) -> DatabaseTrouble | None:
        has_failed.set()
        return database_trouble(error)

    monkeypatch.setattr(lock_waits, "PAUSE_S", 0.1)
    monkeypatch.setattr(lock_waits, "database_trouble", note_trouble)
    with ThreadPoolExecutor() as pool:
        with reader_of("beat_terms"):
            migrating = pool.submit(migrate_in_thread)
            assert has_failed.wait(20)
        migrating.result()
    assert is_applied()
    with connection.cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == ("0",)


def migrate_in_thread() -> None:
    try:
        call_command("migrate", verbosity=0)
    finally:
        connection.close()


@pytest.mark.django_db(transaction=True)
def test_index_broken_off_is_made_anew_however_long_others_take() -> None:
    call_command("migrate", "prices", "0015", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("CREATE INDEX poll_jobs_symbols ON poll_jobs USING gin (symbols)")
        cursor.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'poll_jobs_symbols'::regclass"
        )
    with ThreadPoolExecutor() as pool:
        with reader_of("poll_jobs") as reader:
            migrating = pool.submit(migrate_in_thread)
            wait_until(lambda: _is_waiting_for(reader.info.backend_pid))
            reader.execute("SELECT pg_sleep(0.5)")
        migrating.result()
    with connection.cursor() as cursor:
        cursor.execute("SELECT bool_and(indisvalid) FROM pg_index WHERE indrelid = 'poll_jobs'::regclass")
        assert cursor.fetchone() == (True,)


def _is_waiting_for(pid: int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))", [pid])
        return bool(cursor.fetchone()[0])


@pytest.mark.django_db(transaction=True)
def test_migrations_can_be_undone_and_done_again() -> None:
    call_command("migrate", "prices", "zero", verbosity=0)
    assert not set(PARTITIONED_TABLES) & set(connection.introspection.table_names())
    call_command("migrate", verbosity=0)
    assert is_applied()
