"""Connections of Django's have what the service relies on, whatever the database's own defaults are."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from tests.odd_database import ODD, RELIED_ON, odd_defaults

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def odd_database(transactional_db: None) -> Iterator[None]:
    with odd_defaults(ODD):
        yield


@pytest.mark.usefixtures("odd_database")
def test_odd_defaults_of_the_database_change_no_connection() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [list(RELIED_ON)])
        assert dict(cursor.fetchall()) == RELIED_ON


@pytest.mark.usefixtures("odd_database")
def test_values_are_read_as_they_are_stored() -> None:
    moment = datetime(2026, 2, 1, 12, 30, 0, 123456, tzinfo=UTC)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT %s::timestamptz, interval '1 day -1 second', 0.1234567890123456::float8, %s::text[]",
            [moment, ["NULL", None]],
        )
        found = cursor.fetchone()
    assert found == (moment, timedelta(days=1, seconds=-1), 0.1234567890123456, ["NULL", None])


@pytest.mark.parametrize("value", ["local", "remote_write", "remote_apply"])
def test_choice_between_replicas_stays_the_operators(value: str) -> None:
    with odd_defaults({"synchronous_commit": value}), connection.cursor() as cursor:
        cursor.execute("SHOW synchronous_commit")
        assert cursor.fetchone() == (value,)
