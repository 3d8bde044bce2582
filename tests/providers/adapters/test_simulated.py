"""Made-up prices: the same everywhere, plausible, and never those of a real symbol."""

import itertools
import re
import time
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.adapters.simulated import _NAMED, Simulated, price_at
from providers.base import ErrorKind, Request
from tests.providers.answers import kind_of, make_answer, parse_one, quote_of

NOW = 1_795_188_600


def test_plan_is_one_request_for_a_hundred_symbols() -> None:
    symbols = [f"SIM-{number}" for number in range(201)]
    plan = Simulated().plan(symbols)
    assert [len(request.symbols) for request in plan] == [100, 100, 1]
    assert [symbol for request in plan for symbol in request.symbols] == symbols


def test_fetched_quote_is_of_this_second() -> None:
    adapter = Simulated()
    before = datetime.now(UTC).replace(microsecond=0)
    answer = adapter.fetch(Request("quotes", ("SIM-A", "SIM-B/C&D")))
    assert (answer.provider, answer.status) == ("simulated", 200)
    for symbol, result in adapter.parse(answer).items():
        quote = quote_of(result)
        assert (quote.symbol, quote.currency, quote.precision) == (symbol, "USD", "second")
        assert quote.observed_at is not None
        assert before <= quote.observed_at <= answer.received_at
        assert quote.price == Decimal(price_at(symbol, int(quote.observed_at.timestamp())))


def test_real_symbol_is_unknown() -> None:
    adapter = Simulated()
    results = adapter.parse(adapter.fetch(Request("quotes", ("AAPL", "SIM-A", "XSIM-A"))))
    assert quote_of(results["SIM-A"]).symbol == "SIM-A"
    assert kind_of(results["AAPL"]) == kind_of(results["XSIM-A"]) == ErrorKind.UNKNOWN_SYMBOL


def test_price_is_the_same_on_every_machine() -> None:
    assert [price_at("SIM-A", NOW + second) for second in range(4)] == [
        "397.39",
        "397.36",
        "397.35",
        "397.52",
    ]


@pytest.mark.parametrize(
    ("symbol", "pattern", "low", "high"),
    [
        ("SIM-ACME", r"1\d\d\.\d\d", 135, 165),
        ("SIM-BTC", r"\d{5}\.\d\d", 54_000, 66_000),
        ("SIM-EURUSD", r"1\.\d{5}", Decimal("1.08"), Decimal("1.12")),
    ],
)
def test_price_is_as_its_name_says(symbol: str, pattern: str, low: Decimal, high: Decimal) -> None:
    prices = [price_at(symbol, NOW + hour * 3600) for hour in range(1000)]
    assert all(re.fullmatch(pattern, price) for price in prices)
    assert low < min(map(Decimal, prices)) < max(map(Decimal, prices)) < high
    assert len(set(prices)) > 500


@settings(deadline=None)
@given(
    st.from_regex(r"SIM-[A-Z0-9]{1,10}", fullmatch=True).filter(lambda symbol: symbol not in _NAMED),
    st.integers(min_value=0, max_value=4_102_444_800),
)
def test_price_is_positive_with_two_decimals(symbol: str, second: int) -> None:
    price = price_at(symbol, second)
    assert re.fullmatch(r"[0-9]{1,3}\.[0-9]{2}", price)
    assert Decimal(8) < Decimal(price) < Decimal(575)


@settings(deadline=None)
@given(st.from_regex(r"SIM-[A-Z]{1,4}", fullmatch=True), st.integers(min_value=NOW, max_value=NOW + 10**8))
def test_price_moves_little_from_second_to_second(symbol: str, second: int) -> None:
    before, after = Decimal(price_at(symbol, second)), Decimal(price_at(symbol, second + 1))
    assert abs(after / before - 1) < Decimal("0.01")


def test_price_wanders_over_a_day() -> None:
    prices = [Decimal(price_at("SIM-A", NOW + minute * 60)) for minute in range(1440)]
    assert len(set(prices)) > 300
    assert Decimal("1.01") < max(prices) / min(prices) < Decimal("1.5")
    rises = sum(after > before for before, after in itertools.pairwise(prices))
    assert 500 < rises < 940


def test_symbols_do_not_move_together() -> None:
    def moves(symbol: str) -> list[bool]:
        prices = [Decimal(price_at(symbol, NOW + minute * 600)) for minute in range(200)]
        return [after > before for before, after in itertools.pairwise(prices)]

    same = sum(a == b for a, b in zip(moves("SIM-A"), moves("SIM-B"), strict=True))
    assert 60 < same < 140


def test_ten_thousand_quotes_take_less_than_a_second() -> None:
    adapter = Simulated()
    plan = adapter.plan([f"SIM-{number}" for number in range(10_000)])
    started = time.process_time()
    quotes = [
        quote_of(result) for request in plan for result in adapter.parse(adapter.fetch(request)).values()
    ]
    assert time.process_time() - started < 1
    assert len(quotes) == 10_000


@pytest.mark.parametrize(
    "body", ["", "[]", "{}", '{"quotes": {}}', '{"quotes": [5]}', '{"quotes": [{"symbol": "SIM-A"}]}']
)
def test_answer_that_cannot_be_read_is_malformed(body: str) -> None:
    assert kind_of(parse_one("simulated", "SIM-A", body)) == ErrorKind.MALFORMED


def test_fallback_is_none() -> None:
    assert Simulated().fallback(make_answer("simulated", ("SIM-A",), b"", status=500)) == []
