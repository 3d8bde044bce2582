"""Tasks while PostgreSQL is away, busy or full."""

import pytest
from django.db import OperationalError, ProgrammingError, connection, transaction
from structlog.testing import capture_logs

from prices.maintenance.task_errors import without_database_errors

pytestmark = pytest.mark.django_db(transaction=True)


@without_database_errors
def too_slow() -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 1")
        cursor.execute("SELECT pg_sleep(1)")


@without_database_errors
def away() -> None:
    raise OperationalError("connection refused")


@without_database_errors
def well() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


@without_database_errors
def bug() -> None:
    raise ProgrammingError("no such column")


def test_outage_is_logged_once() -> None:
    with capture_logs() as logs:
        for task in (too_slow, too_slow, away, well, well):
            task()
    assert [entry["event"] for entry in logs] == ["tasks.database_away", "tasks.database_back"]
    assert "PostgreSQL is busy with other work: canceling statement" in logs[0]["reason"]


def test_bug_stays_loud() -> None:
    with pytest.raises(ProgrammingError):
        bug()
