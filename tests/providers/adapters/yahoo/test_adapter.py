"""Yahoo: how its charts and quotes are planned and read."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from providers.adapters.yahoo.adapter import Yahoo
from providers.base import ErrorKind, Request
from providers.registry import get_provider
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


def test_plan_while_quotes_are_refused_is_a_chart_for_each() -> None:
    assert Yahoo().plan(["AAPL", "MSFT"], singly=True) == [
        Request("chart", ("AAPL",)),
        Request("chart", ("MSFT",)),
    ]


def test_quote_is_the_regular_market_price() -> None:
    quote = quote_of(parse_row())
    assert (quote.symbol, str(quote.price), quote.currency) == ("AAPL", "244.6", "USD")
    assert (quote.observed_at, quote.precision) == (datetime(2025, 2, 14, 21, tzinfo=UTC), "second")


@pytest.mark.parametrize("symbol", ["BRK.B", "USD/JPY"])
def test_quote_has_the_symbol_that_was_asked_for(symbol: str) -> None:
    spelling = {"BRK.B": "BRK-B", "USD/JPY": "USDJPY=X"}[symbol]
    row = {**ROW, "symbol": spelling, "currency": "JPY" if "JPY" in spelling else "USD"}
    assert quote_of(parse(quote_body(row), symbol)).symbol == symbol


@pytest.mark.parametrize("symbol", ["USDJPY=X", "JPY=X", "USD/JPY"])
@pytest.mark.parametrize("answered", ["USDJPY=X", "JPY=X", "jpy=x"])
def test_quote_of_a_dollar_pair_may_leave_out_the_dollar(symbol: str, answered: str) -> None:
    row = {**ROW, "symbol": answered, "currency": "JPY"}
    assert quote_of(parse(quote_body(row), symbol)).symbol == symbol
    assert quote_of(parse(chart_body(row), symbol)).symbol == symbol


@pytest.mark.parametrize("answered", ["EURJPY=X", "JPYUSD=X", "EUR=X", "USDJPY", "JPY"])
def test_quote_of_another_pair_is_malformed(answered: str) -> None:
    assert kind_of(parse(quote_body({**ROW, "symbol": answered}), "USDJPY=X")) == ErrorKind.MALFORMED


def test_quote_in_pence_stays_in_pence() -> None:
    assert quote_of(parse_row(currency="GBp")).currency == "GBp"


PAIRS = [
    *(("EURUSD=X", "USD"), ("USDJPY=X", "JPY"), ("JPY=X", "JPY"), ("USD/JPY", "JPY"), ("USDGBP=X", "GBP")),
    *(("BTC-USD", "USD"), ("BTC-EUR", "EUR"), ("1INCH-GBP", "GBP")),
]


@pytest.mark.parametrize(("symbol", "currency"), PAIRS)
@pytest.mark.parametrize("told", ["JPY", "EUR", "USD", "GBp", "GBP", "BTC", None])
def test_currency_of_a_pair_is_the_one_that_it_names(symbol: str, currency: str, told: str | None) -> None:
    spelling = {"JPY=X": "USDJPY=X", "USD/JPY": "USDJPY=X"}.get(symbol, symbol)
    for body in (quote_body, chart_body):
        found = parse(body({**ROW, "symbol": spelling, "currency": told}), symbol)
        if told in {None, currency}:
            assert quote_of(found).currency == told
        else:
            error = error_of(found)
            assert error.kind == ErrorKind.MALFORMED
            assert error.message == "the currency contradicts its own symbol"


@pytest.mark.parametrize("symbol", ["VOD.L", "GC=F", "^GSPC", "BRK-B", "PBR-A", "ABC-WTX", "ETH-BTC", "AAPL"])
def test_currency_of_what_names_none_is_kept(symbol: str) -> None:
    assert quote_of(parse(quote_body({**ROW, "symbol": symbol, "currency": "ZAc"}), symbol)).currency == "ZAc"


def twice(name: str, body: Any) -> str:
    """Return the body with a name of its row there twice."""
    return json.dumps(body).replace('"symbol"', f'"{name}": "?", "{name}": "?", "symbol"')


@pytest.mark.parametrize("name", ["currency", "regularMarketDayHigh", "previousClose", "longName"])
def test_row_with_a_name_twice_is_malformed(name: str) -> None:
    for body in (quote_body(ROW), chart_body(ROW)):
        error = error_of(parse(twice(name, body)))
        assert (error.kind, error.message) == (ErrorKind.MALFORMED, "the answer gives a name twice")


def test_row_with_a_name_twice_costs_the_others_nothing() -> None:
    body = twice("currency", quote_body(ROW)).replace(
        '"result": [', f'"result": [{json.dumps(ROW | {"symbol": "MSFT"})}, '
    )
    results = Yahoo().parse(make_answer("yfinance", ("AAPL", "MSFT"), body))
    assert kind_of(results["AAPL"]) == ErrorKind.MALFORMED
    assert price_of(results["MSFT"]) == Decimal("244.6")


@pytest.mark.parametrize("name", ["result", "error"])
def test_envelope_with_a_name_twice_is_malformed(name: str) -> None:
    body = (
        json.dumps(quote_body(ROW))
        .replace('"result"', f'"{name}": null, "result"')
        .replace("}}", f', "{name}": null}}}}')
    )
    assert kind_of(parse(body)) == ErrorKind.MALFORMED


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
        *((status, "Too Many Requests", UPSTREAM_ERROR) for status in (302, 500, 502, 503, 599)),
        *((status, NOT_FOUND, UPSTREAM_ERROR) for status in (302, 500, 502)),
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


@pytest.mark.parametrize("status", [302, 500, 502, 503])
@pytest.mark.parametrize("body", [INVALID_CRUMB, QUOTES_GONE])
def test_fallback_of_a_provider_that_is_down_is_none(status: int, body: Any) -> None:
    answer = make_answer("yfinance", ("AAPL", "MSFT"), body, status=status, url=QUOTE_URL)
    assert Yahoo().fallback(answer) == []


@pytest.mark.parametrize("status", [200, 404, 500, 503])
def test_fallback_of_another_answer_is_none(status: int) -> None:
    assert Yahoo().fallback(make_answer("yfinance", ("AAPL", "MSFT"), "", status=status, url=QUOTE_URL)) == []


def test_fallback_of_a_refused_chart_is_none() -> None:
    url = "https://query2.finance.yahoo.com/v8/finance/chart/AAPL?range=1d&interval=1d"
    assert Yahoo().fallback(make_answer("yfinance", ("AAPL",), "", status=429, url=url)) == []


@pytest.mark.parametrize(
    "ranges",
    [
        {"regularMarketDayLow": 19.10, "regularMarketDayHigh": 19.42},
        {"fiftyTwoWeekLow": 14.9, "fiftyTwoWeekHigh": 20.3},
        {"regularMarketDayLow": 24460, "regularMarketDayHigh": 24461},
    ],
)
def test_price_that_contradicts_its_range_is_malformed(ranges: dict[str, float]) -> None:
    for body in (quote_body(ROW | ranges), chart_body(ROW | ranges)):
        error = error_of(parse(body))
        assert (error.kind, error.message) == (ErrorKind.MALFORMED, "the price contradicts its own range")


@pytest.mark.parametrize("name", ["chartPreviousClose", "previousClose", "regularMarketPreviousClose"])
def test_price_that_the_previous_close_confirms_passes(name: str) -> None:
    row = ROW | {"regularMarketDayLow": 1, "regularMarketDayHigh": 2}
    assert price_of(parse(chart_body(row | {name: 243}))) == Decimal("244.6")
    assert kind_of(parse(chart_body(row | {name: 2}))) == ErrorKind.MALFORMED


def test_contradiction_costs_the_others_nothing() -> None:
    rows = [ROW | {"regularMarketDayHigh": 2}, ROW | {"symbol": "MSFT"}]
    results = get_provider("yfinance").parse(make_answer("yfinance", ("AAPL", "MSFT"), quote_body(*rows)))
    assert kind_of(results["AAPL"]) == ErrorKind.MALFORMED
    assert price_of(results["MSFT"]) == Decimal("244.6")
