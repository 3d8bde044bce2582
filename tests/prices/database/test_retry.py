import pytest
from django.db import OperationalError, ProgrammingError, connection, transaction
from pytest_django import Settings

from prices.database import retry as patience
from prices.database.retry import retry_database


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "RETRY_S", 0.01)


def test_patiently_stores_once_the_database_is_back() -> None:
    failures = [OperationalError("gone"), OperationalError("still gone")]

    def store() -> str:
        if failures:
            raise failures.pop()
        return "stored"

    assert retry_database(store) == "stored"


@pytest.mark.django_db(transaction=True)
def test_patiently_keeps_its_connection_while_busy() -> None:
    timeouts_ms = [1, 0]
    sessions: list[int] = []

    def store() -> str:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            sessions.extend(cursor.fetchone())
            cursor.execute(f"SET LOCAL statement_timeout = {timeouts_ms.pop(0)}")
            cursor.execute("SELECT pg_sleep(0.1)")
        return "stored"

    assert retry_database(store) == "stored"
    assert len(sessions) == 2
    assert len(set(sessions)) == 1


def test_patiently_raises_a_bug_at_once(db: None) -> None:
    calls: list[int] = []

    def store() -> None:
        calls.append(1)
        raise ProgrammingError("no such column")

    with pytest.raises(ProgrammingError):
        retry_database(store)
    assert calls == [1]


def test_patiently_gives_up_after_the_deadline(settings: Settings) -> None:
    settings.POLL_DEADLINE_S = 0

    def store() -> None:
        raise OperationalError("gone")

    with pytest.raises(OperationalError):
        retry_database(store)
