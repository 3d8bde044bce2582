"""Queries that are prepared answer as any others, and are planned once for each connection."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.db import OperationalError, connection

from prices.database.queries import fetch, fetch_prepared

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("text", "a"),
        ("text", ""),
        ("text", None),
        ("text", "%(value)s 100%"),
        ("int", -5),
        ("uuid", UUID(int=7)),
        ("timestamptz", datetime(2026, 11, 30, 12, 0, 0, 5, tzinfo=UTC)),
        ("text[]", []),
        ("text[]", ["", "a,b", '"', "\\", "{}", "NULL", "\u00e9 b"]),
        ("uuid[]", [UUID(int=0), UUID(int=(1 << 128) - 1)]),
    ],
)
def test_value_arrives_as_by_a_cursor(kind: str, value: Any) -> None:
    statement = f"SELECT (%(value)s::{kind})::text, 5 %% 3, %(other)s::text"
    ((expected, *_),) = fetch(statement, {"value": value, "other": "x"})
    assert fetch_prepared(statement, {"other": "x", "value": value}) == [[expected, "2", "x"]]


def test_rows_come_in_their_order() -> None:
    statement = "SELECT number, NULL FROM generate_series(1, %(most)s) AS number ORDER BY number DESC"
    assert fetch_prepared(statement, {"most": 3}) == [["3", None], ["2", None], ["1", None]]
    assert fetch_prepared(statement, {"most": 0}) == []


def test_statement_is_prepared_once_and_has_one_plan() -> None:
    connection.close()
    statement = "SELECT count(*) FROM price_points WHERE symbol = %(symbol)s"
    for symbol in "ABCDEFGH":
        fetch_prepared(statement, {"symbol": symbol})
    prepared = "SELECT count(*), sum(generic_plans), sum(custom_plans) FROM pg_prepared_statements"
    assert list(fetch(prepared, {})) == [(1, 8, 0)]


def test_fault_is_told_in_postgresqls_words() -> None:
    with pytest.raises(OperationalError, match='relation "nowhere" does not exist'):
        fetch_prepared("SELECT FROM nowhere", {})
    with pytest.raises(OperationalError, match="invalid input syntax for type integer"):
        fetch_prepared("SELECT %(number)s::int", {"number": "x"})
    assert fetch_prepared("SELECT %(number)s::int", {"number": 1}) == [["1"]]


def test_lost_connection_is_an_error_until_it_is_closed() -> None:
    fetch_prepared("SELECT 1", {})
    parameters = connection.get_connection_params() | {"cursor_factory": psycopg.Cursor}
    with psycopg.connect(**parameters, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 10000)", [connection.connection.info.backend_pid])
    for _ in range(2):
        with pytest.raises(OperationalError):
            fetch_prepared("SELECT 1", {})
    connection.close()
    assert fetch_prepared("SELECT 1", {}) == [["1"]]
