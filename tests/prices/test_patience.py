import pytest
from django.db import OperationalError
from pytest_django import Settings

from prices.patience import patiently


def test_patiently_stores_once_the_database_is_back() -> None:
    failures = [OperationalError("gone"), OperationalError("still gone")]

    def store() -> str:
        if failures:
            raise failures.pop()
        return "stored"

    assert patiently(store) == "stored"


def test_patiently_gives_up_after_the_deadline(settings: Settings) -> None:
    settings.POLL_DEADLINE_S = 0

    def store() -> None:
        raise OperationalError("gone")

    with pytest.raises(OperationalError):
        patiently(store)
