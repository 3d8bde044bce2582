"""The partitioned tables are written in SQL; this holds them against the models beside it."""

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from prices.partitions import PARTITIONED_TABLES

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


@pytest.mark.django_db(transaction=True)
def test_migrations_can_be_undone_and_done_again() -> None:
    call_command("migrate", "prices", "zero", verbosity=0)
    assert not set(PARTITIONED_TABLES) & set(connection.introspection.table_names())
    call_command("migrate", verbosity=0)
    executor = MigrationExecutor(connection)
    assert executor.migration_plan(executor.loader.graph.leaf_nodes()) == []
