"""The consumer's connection waits for nothing for long."""

import psycopg
import pytest

import consumers.connection
from consumers.connection import connect

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("lock_timeout", "2s"),
        ("transaction_timeout", "5s"),
        ("transaction_isolation", "read committed"),
        ("application_name", "consume_prices"),
    ],
)
def test_connection_has_its_bounds(setting: str, value: str) -> None:
    with connect() as connection:
        row = connection.execute("SELECT current_setting(%s)", [setting]).fetchone()
    assert row == (value,)


def test_transaction_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers.connection, "TRANSACTION_TIMEOUT_MS", 100)
    with connect() as connection, pytest.raises(psycopg.errors.TransactionTimeout):
        connection.execute("SELECT pg_sleep(5)")
