"""Rows that were there before averages had a currency get that of their points."""

from collections.abc import Callable, Iterator
from importlib import import_module

import pytest
from django.core.management import call_command
from django.db import connection

from prices.models import SymbolAverage
from tests.consumers.samples import event_id, point

pytestmark = pytest.mark.django_db(transaction=True)
migration = import_module("prices.migrations.0009_averages_by_currency")


@pytest.fixture
def migrate_back() -> Iterator[Callable[[], None]]:
    """Yield what takes the tables back to before; points are stored earlier, as the model has them now."""

    def migrate_back() -> None:
        call_command("migrate", "prices", "0008", verbosity=0)

    yield migrate_back
    call_command("migrate", verbosity=0)


def add_row(number: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO symbol_averages (event_id, symbol, price, window_size, provider)"
            " VALUES (%s, 'SIM-A', 100, 1, 'simulated')",
            [event_id(number)],
        )


def currencies() -> list[str | None]:
    return list(SymbolAverage.objects.order_by("event_id").values_list("currency", flat=True))


def test_rows_get_the_currency_of_their_points(
    monkeypatch: pytest.MonkeyPatch, migrate_back: Callable[[], None]
) -> None:
    monkeypatch.setattr(migration, "ROWS_AT_ONCE", 2)
    for number, currency in enumerate(["GBp", None, "USD", "GBp", "EUR"]):
        point(number, currency=currency)
    migrate_back()
    for number in range(6):
        add_row(number)
    call_command("migrate", "prices", verbosity=0)
    assert currencies() == ["GBp", None, "USD", "GBp", "EUR", None]


def test_broken_migration_can_be_run_again(
    monkeypatch: pytest.MonkeyPatch, migrate_back: Callable[[], None]
) -> None:
    point(0, currency="GBp")
    migrate_back()
    add_row(0)
    with monkeypatch.context() as patch:
        patch.setattr(migration, "COLUMNS", migration.SQL("(no_such_column)"))
        with pytest.raises(Exception, match="no_such_column"):
            call_command("migrate", "prices", verbosity=0)
    call_command("migrate", "prices", verbosity=0)
    assert currencies() == ["GBp"]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT bool_and(indisvalid) FROM pg_index WHERE indexrelid::regclass::text ~ '_window'"
        )
        assert cursor.fetchone() == (True,)
