"""The packed rows, read by PostgreSQL itself."""

from collections.abc import Sequence
from decimal import Context, Decimal, Inexact
from functools import reduce

import pytest
from django.db import connection
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.averages import rows
from consumers.averages.columns import NO_POINTS, columns_of
from consumers.averages.rows import COLUMNS, copy_data, rows_of
from consumers.averages.windows import average, sort_events
from prices.publishing.events import PriceEvent
from tests.consumers.samples import event
from tests.examples import examples

pytestmark = pytest.mark.django_db
# A digit that would be lost raises instead.
EXACT = Context(prec=60, traps=[Inexact])
prices = st.decimals(
    min_value=Decimal("1e-16"), max_value=Decimal("999999999999.9999999999999999"), places=16
)


def copied(events: Sequence[PriceEvent]) -> list[tuple[object, ...]]:
    """Return what PostgreSQL makes of the rows of a batch, by id."""
    columns = columns_of(events)
    averaged = average(sort_events(columns), [NO_POINTS] * len(columns.series))
    names = ", ".join(COLUMNS)
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TEMPORARY TABLE IF NOT EXISTS packed (LIKE symbol_averages INCLUDING DEFAULTS)"
        )
        cursor.execute("TRUNCATE packed")
        with cursor.cursor.copy(f"COPY packed ({names}) FROM STDIN (FORMAT BINARY)") as copy:
            for piece in copy_data(averaged, rows_of(columns)):
                copy.write(piece)
        cursor.execute(
            "SELECT event_id, symbol, currency, provider, price::text, window_size, observed_at,"
            " average::text FROM packed ORDER BY event_id"
        )
        return list(cursor.fetchall())


@given(st.lists(st.tuples(prices, st.booleans()), min_size=1, max_size=9))
@settings(max_examples=examples(50))
def test_postgresql_reads_what_was_packed(db: None, values: list[tuple[Decimal, bool]]) -> None:
    """Prices and averages have no trailing zeros, as numeric keeps them."""
    events = [
        PriceEvent(made.event_id, made.symbol, price, made.provider, made.observed_at if has_time else None)
        for number, (price, has_time) in enumerate(values)
        for made in [event(number)]
    ]
    for number, row in enumerate(copied(events)):
        window = [price for price, _has_time in values[max(0, number - 4) : number + 1]]
        mean = f"{EXACT.divide(reduce(EXACT.add, window), 5):f}" if len(window) == 5 else None
        assert row == (
            events[number].event_id,
            "SIM-A",
            None,
            "simulated",
            _plain(f"{window[-1]:f}"),
            len(window),
            events[number].observed_at,
            mean and _plain(mean),
        )


def test_texts_of_any_length_come_through() -> None:
    symbols = ["A", "SIM-ACME", "X" * 32]
    events = [
        PriceEvent(event(number).event_id, symbol, Decimal("1.5"), "é" * (number + 1), None, currency)
        for number, (symbol, currency) in enumerate(zip(symbols, ["GBp", None, "USDT"], strict=True))
    ]
    assert [row[1:4] for row in copied(events)] == [
        (each.symbol, each.currency, each.provider) for each in events
    ]


def test_rows_in_several_pieces_are_those_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [event(number, price=f"{number}.5") for number in range(1, 12)]
    whole = copied(events)
    monkeypatch.setattr(rows, "PIECE_ROWS", 4)
    assert copied(events) == whole


def test_no_rows_make_no_data() -> None:
    columns = columns_of([])
    assert list(copy_data(average(sort_events(columns), []), rows_of(columns))) == []


def _plain(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text
