"""Yahoo: how its charts and quotes are planned and read."""

from datetime import UTC, datetime
from typing import Any

import pytest

from providers.base import ErrorKind, Request
from providers.yahoo import Yahoo
from tests.providers.answers import error_of, kind_of, make_answer, parse_one, price_of, quote_of
from tests.providers.yahoo_bodies import INVALID_CRUMB, NOT_FOUND, QUOTE_URL, ROW, chart_body, quote_body


def parse(body: Any, symbol: str = "AAPL", **answer: Any) -> Any:
    return parse_one("yfinance", symbol, body, **answer)


def parse_row(**fields: Any) -> Any:
    row = {**ROW, **fields}
    results = [parse(body) for body in (quote_body(row), chart_body(row))]
    assert repr(results[0]) == repr(results[1])
    return results[0]


def test_plan_of_one_symbol_is_a_chart() -> None:
    assert Yahoo().plan(["AAPL"]) == [Request("chart", ("AAPL",))]


def test_plan_of_many_symbols_is_one_quote_for_fifty() -> None:
    symbols = [f"S{number}" for number in range(101)]
    plan = Yahoo().plan(symbols)
    assert [(request.call, len(request.symbols)) for request in plan] == [
        ("quote", 50),
        ("quote", 50),
        ("chart", 1),
    ]
    assert [symbol for request in plan for symbol in request.symbols] == symbols


def test_quote_is_the_regular_market_price() -> None:
    quote = quote_of(parse_row())
    assert (quote.symbol, str(quote.price), quote.currency) == ("AAPL", "244.6", "USD")
    assert (quote.observed_at, quote.precision) == (datetime(2025, 2, 14, 21, tzinfo=UTC), "second")


@pytest.mark.parametrize("symbol", ["BRK.B", "USD/JPY"])
def test_quote_has_the_symbol_that_was_asked_for(symbol: str) -> None:
    spelling = {"BRK.B": "BRK-B", "USD/JPY": "USDJPY=X"}[symbol]
    assert quote_of(parse(quote_body({**ROW, "symbol": spelling}), symbol)).symbol == symbol


@pytest.mark.parametrize("symbol", ["USDJPY=X", "JPY=X", "USD/JPY"])
@pytest.mark.parametrize("answered", ["USDJPY=X", "JPY=X", "jpy=x"])
def test_quote_of_a_dollar_pair_may_leave_out_the_dollar(symbol: str, answered: str) -> None:
    row = {**ROW, "symbol": answered}
    assert quote_of(parse(quote_body(row), symbol)).symbol == symbol
    assert quote_of(parse(chart_body(row), symbol)).symbol == symbol


@pytest.mark.parametrize("answered", ["EURJPY=X", "JPYUSD=X", "EUR=X", "USDJPY", "JPY"])
def test_quote_of_another_pair_is_malformed(answered: str) -> None:
    assert kind_of(parse(quote_body({**ROW, "symbol": answered}), "USDJPY=X")) == ErrorKind.MALFORMED


def test_quote_in_pence_stays_in_pence() -> None:
    assert quote_of(parse_row(currency="GBp")).currency == "GBp"


@pytest.mark.parametrize("epoch", [None, 0])
def test_quote_without_a_time_has_none(epoch: int | None) -> None:
    quote = quote_of(parse_row(regularMarketTime=epoch))
    assert (quote.observed_at, quote.precision) == (None, "unknown")


@pytest.mark.parametrize(
    "fields",
    [
        *(
            {"regularMarketPrice": price}
            for price in (None, 0, -1, "244.6", True, float("nan"), 1e13, [1], {"raw": 1})
        ),
        *({"regularMarketTime": epoch} for epoch in (-5, 1e12, "1739566800", 1739566800000)),
        *({"symbol": symbol} for symbol in ("MSFT", None, 5)),
    ],
)
def test_quote_that_cannot_be_trusted_is_malformed(fields: dict[str, Any]) -> None:
    assert kind_of(parse_row(**fields)) == ErrorKind.MALFORMED


@pytest.mark.parametrize("fields", [{"exchange": "YHD"}, {"quoteType": "NONE"}])
def test_delisted_symbol_without_a_price_is_unknown(fields: dict[str, Any]) -> None:
    assert kind_of(parse_row(regularMarketPrice=None, **fields)) == ErrorKind.UNKNOWN_SYMBOL


@pytest.mark.parametrize("row", [None, 5, {"meta": None}])
def test_batch_row_that_is_none_costs_only_itself(row: object) -> None:
    body = {"quoteResponse": {"result": [row, {**ROW, "symbol": "MSFT"}], "error": None}}
    results = Yahoo().parse(make_answer("yfinance", ("AAPL", "MSFT"), body, url=QUOTE_URL))
    assert price_of(results["MSFT"]) == price_of(parse_row())
    assert kind_of(results["AAPL"]) == ErrorKind.MALFORMED


def test_batch_symbols_stand_alone() -> None:
    symbols = ("AAPL", "BAD", "TWICE", "GONE")
    rows = [ROW, {**ROW, "symbol": "BAD", "regularMarketPrice": 0}, *[{**ROW, "symbol": "TWICE"}] * 2]
    results = Yahoo().parse(make_answer("yfinance", symbols, quote_body(*rows)))
    assert tuple(results) == symbols
    assert quote_of(results["AAPL"]).symbol == "AAPL"
    assert kind_of(results["BAD"]) == kind_of(results["TWICE"]) == ErrorKind.MALFORMED
    assert kind_of(results["GONE"]) == ErrorKind.UNKNOWN_SYMBOL


BROKEN_BODIES: list[Any] = [b"", "{", "[]", "{}", "null", {"chart": None}, {"chart": {}}]
BROKEN_RESULTS: list[Any] = [None, {}, "AAPL", [None], [5], [{"meta": 5}]]
# As Yahoo answers at the address of a call that it has given up.
QUOTES_GONE = {
    "finance": {"result": None, "error": {"code": "Not Found", "description": "HTTP 404 Not Found"}}
}
MALFORMED, UPSTREAM_ERROR = ErrorKind.MALFORMED, ErrorKind.UPSTREAM_ERROR
UNKNOWN_SYMBOL, RATE_LIMITED = ErrorKind.UNKNOWN_SYMBOL, ErrorKind.RATE_LIMITED


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, NOT_FOUND, UNKNOWN_SYMBOL),
        (200, NOT_FOUND, UNKNOWN_SYMBOL),
        (200, quote_body(), UNKNOWN_SYMBOL),
        (404, "<html>", UPSTREAM_ERROR),
        (404, quote_body(ROW), UPSTREAM_ERROR),
        (404, b"", UPSTREAM_ERROR),
        (404, '{"chart": "Not Found"', UPSTREAM_ERROR),
        (404, {"chart": {"result": [ROW], "name": "Not Found"}}, UPSTREAM_ERROR),
        (429, "Too Many Requests\r\n", RATE_LIMITED),
        (200, "Too Many Requests\r\n", RATE_LIMITED),
        (429, "<html>", RATE_LIMITED),
        (401, INVALID_CRUMB, UPSTREAM_ERROR),
        (200, INVALID_CRUMB, UPSTREAM_ERROR),
        (200, {"chart": {"result": None, "error": "?"}}, UPSTREAM_ERROR),
        (301, "<html>", UPSTREAM_ERROR),
        (500, quote_body(ROW), UPSTREAM_ERROR),
        (503, b"", UPSTREAM_ERROR),
        (200, "<!DOCTYPE html>", UPSTREAM_ERROR),
        *((200, body, MALFORMED) for body in BROKEN_BODIES),
        *((200, {"chart": {"result": result}}, MALFORMED) for result in BROKEN_RESULTS),
        (200, {"chart": {"result": []}, "finance": {}}, MALFORMED),
    ],
)
def test_status_and_body_mean(status: int, body: Any, kind: ErrorKind) -> None:
    assert kind_of(parse(body, status=status)) == kind


def test_not_found_about_several_symbols_says_nothing_of_each() -> None:
    results = Yahoo().parse(make_answer("yfinance", ("AAPL", "MSFT"), NOT_FOUND, status=404))
    assert [kind_of(result) for result in results.values()] == [UPSTREAM_ERROR] * 2


@pytest.mark.parametrize("status", [200, 404])
def test_not_found_of_the_call_for_many_says_nothing_of_one_either(status: int) -> None:
    assert kind_of(parse(QUOTES_GONE, status=status, url=QUOTE_URL)) == UPSTREAM_ERROR


def test_rate_limit_tells_how_long_to_wait() -> None:
    assert error_of(parse("", status=429, headers={"retry-after": "60"})).retry_after == 60


@pytest.mark.parametrize("status", [401, 403, 429])
def test_fallback_of_a_refused_quote_is_a_chart_for_each_symbol(status: int) -> None:
    answer = make_answer("yfinance", ("AAPL", "MSFT"), INVALID_CRUMB, status=status, url=QUOTE_URL)
    assert Yahoo().fallback(answer) == [Request("chart", ("AAPL",)), Request("chart", ("MSFT",))]


@pytest.mark.parametrize(("status", "body"), [(200, INVALID_CRUMB), (404, QUOTES_GONE), (200, QUOTES_GONE)])
def test_fallback_of_a_quote_that_is_refused_in_words_is_a_chart_for_each_symbol(
    status: int, body: Any
) -> None:
    answer = make_answer("yfinance", ("AAPL", "MSFT"), body, status=status, url=QUOTE_URL)
    assert Yahoo().fallback(answer) == [Request("chart", ("AAPL",)), Request("chart", ("MSFT",))]


@pytest.mark.parametrize("status", [200, 404, 500, 503])
def test_fallback_of_another_answer_is_none(status: int) -> None:
    assert Yahoo().fallback(make_answer("yfinance", ("AAPL", "MSFT"), "", status=status, url=QUOTE_URL)) == []


def test_fallback_of_a_refused_chart_is_none() -> None:
    url = "https://query2.finance.yahoo.com/v8/finance/chart/AAPL?range=1d&interval=1d"
    assert Yahoo().fallback(make_answer("yfinance", ("AAPL",), "", status=429, url=url)) == []
