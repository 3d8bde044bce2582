"""Finnhub: zeros, old times, and refusals that look alike."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pytest_django import Settings
from pytest_httpserver import HTTPServer

from providers.adapters.finnhub import Finnhub
from providers.adapters.parsing import LONGEST_WAIT_S
from providers.base import ErrorKind, NotConfiguredError, Request
from tests.providers.answers import RECEIVED_AT, error_of, kind_of, make_answer, parse_one, price_of, quote_of

KEY = "canarykey1234567890"
QUOTE = '{"c":153.040,"d":2.04,"dp":1.351,"h":153.72,"l":150.37,"o":151.12,"pc":151,"t":1658347204}'


def parse(body: Any, **answer: Any) -> Any:
    return parse_one("finnhub", "AAPL", body, **answer)


def test_plan_is_one_request_a_symbol() -> None:
    assert Finnhub().plan(["AAPL", "BINANCE:BTCUSDT"]) == [
        Request("quote", ("AAPL",)),
        Request("quote", ("BINANCE:BTCUSDT",)),
    ]


def test_fallback_is_none() -> None:
    assert Finnhub().fallback(make_answer("finnhub", ("AAPL",), b"", status=500)) == []


def test_quote_has_the_time_of_the_trade_however_old() -> None:
    quote = quote_of(parse(QUOTE))
    assert (quote.symbol, str(quote.price), quote.currency) == ("AAPL", "153.04", None)
    assert (quote.observed_at, quote.precision) == (datetime(2022, 7, 20, 20, 0, 4, tzinfo=UTC), "second")


@pytest.mark.parametrize("body", ['{"c":12.5}', '{"c":12.5,"t":null}', '{"c":12.5,"t":0}'])
def test_quote_without_a_time_has_none(body: str) -> None:
    quote = quote_of(parse(body))
    assert (quote.observed_at, quote.precision) == (None, "unknown")


@pytest.mark.parametrize("body", ['{"c":0,"d":null,"t":0}', '{"c":0.0,"t":0}'])
def test_zeros_are_an_unknown_symbol(body: str) -> None:
    assert kind_of(parse(body)) == ErrorKind.UNKNOWN_SYMBOL


@pytest.mark.parametrize(
    "body",
    [
        *('{"c":0,"t":1658347204}', '{"c":0}', '{"c":0,"t":null}', '{"c":0,"t":false}', '{"c":0,"t":"0"}'),
        *('{"c":-1,"t":1658347204}', '{"c":NaN,"t":0}', '{"c":Infinity}', '{"c":1e400,"t":0}', '{"c":1e-40}'),
        *(
            '{"c":"12","t":1658347204}',
            '{"c":null,"t":1658347204}',
            '{"c":true}',
            '{"c":[1]}',
            '{"t":1658347204}',
        ),
        *(
            '{"c":1,"t":-5}',
            '{"c":1,"t":99999999999}',
            '{"c":1,"t":1658347204000}',
            '{"c":1,"t":"1658347204"}',
        ),
        *(
            '{"c":1,"c":2}',
            "{}",
            "[]",
            "null",
            "",
            "{",
            '{"c":1',
            "OK",
            '{"error":"?"}',
        ),
        *("[" * 50_000, '{"c":' * 50_000),
    ],
)
def test_quote_that_cannot_be_trusted_is_malformed(body: str) -> None:
    assert kind_of(parse(body)) == ErrorKind.MALFORMED


def test_quote_for_several_symbols_is_malformed_for_all() -> None:
    results = Finnhub().parse(make_answer("finnhub", ("AAPL", "MSFT"), QUOTE))
    assert [kind_of(result) for result in results.values()] == [ErrorKind.MALFORMED] * 2


INVALID_KEY, NOT_ENTITLED = ErrorKind.INVALID_KEY, ErrorKind.NOT_ENTITLED
RATE_LIMITED, UPSTREAM_ERROR = ErrorKind.RATE_LIMITED, ErrorKind.UPSTREAM_ERROR
UNKNOWN_SYMBOL = ErrorKind.UNKNOWN_SYMBOL
NO_ACCESS = {"error": "You don't have access to this resource."}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, {"error": "Invalid API key."}, INVALID_KEY),
        (403, {"error": "Invalid API key"}, INVALID_KEY),
        (401, b"", INVALID_KEY),
        (401, NO_ACCESS, NOT_ENTITLED),
        (403, NO_ACCESS, NOT_ENTITLED),
        (403, b"", NOT_ENTITLED),
        (200, NO_ACCESS, NOT_ENTITLED),
        (403, {"error": "Market data subscription required for CFD indices."}, NOT_ENTITLED),
        (403, "<html>Attention required!</html>", UPSTREAM_ERROR),
        (429, {"error": "API limit reached. Please try again later. Remaining Limit: 0"}, RATE_LIMITED),
        (429, "<html>", RATE_LIMITED),
        (429, b"\xff\x00", RATE_LIMITED),
        (200, {"error": "API limit reached."}, RATE_LIMITED),
        *(
            # As the provider once answered: with 200, as plain text or as a JSON text.
            (200, "You don't have access to this resource.", NOT_ENTITLED),
            (200, '"You don\'t have access to this resource."', NOT_ENTITLED),
            (200, "API limit reached. Please try again later.", RATE_LIMITED),
            (200, "Invalid API key", INVALID_KEY),
        ),
        *((status, {"error": "Symbol not supported."}, UNKNOWN_SYMBOL) for status in (200, 400, 404, 422)),
        # A page of what stands before the provider, or of where it leads to.
        *(
            (status, text, UPSTREAM_ERROR)
            for status in (204, 302, 500, 502, 503, 522, 599)
            for text in (
                "API limit reached. Please try again later.",
                {"error": "Invalid API key."},
                {"error": "You don't have access to this resource."},
                {"error": "Symbol not supported."},
                "Please sign up",
            )
        ),
        (429, "API limit reached. Please sign up for a free account to continue using the API", INVALID_KEY),
        (301, b"", UPSTREAM_ERROR),
        (404, b"", UPSTREAM_ERROR),
        (500, QUOTE, UPSTREAM_ERROR),
        (522, "<html>", UPSTREAM_ERROR),
        (200, "<!DOCTYPE html>", UPSTREAM_ERROR),
    ],
)
def test_status_and_text_mean(status: int, body: Any, kind: ErrorKind) -> None:
    assert kind_of(parse(body, status=status)) == kind


RESET = str(int(RECEIVED_AT.timestamp()) + 42)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "17", "x-ratelimit-reset": RESET}, 17.0),
        ({"x-ratelimit-reset": RESET}, 42.0),
        ({"x-ratelimit-reset": "1637106492"}, None),
        *(
            ({"x-ratelimit-reset": epoch}, LONGEST_WAIT_S)
            for epoch in ("999999999999", "1795188642000", "9" * 40)
        ),
        ({"x-ratelimit-reset": f" {RESET} "}, 42.0),
        ({"x-ratelimit-reset": f"{RESET}, {RESET}"}, None),
        ({"x-ratelimit-reset": "-5"}, None),
        ({"x-ratelimit-reset": "soon"}, None),
        ({}, None),
    ],
)
def test_rate_limit_tells_how_long_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    error = error_of(parse({"error": "API limit reached."}, status=429, headers=headers))
    assert error.retry_after == seconds


@pytest.fixture
def server(httpserver: HTTPServer, settings: Settings) -> HTTPServer:
    settings.FINNHUB_API_KEY = KEY
    settings.FINNHUB_BASE_URL = httpserver.url_for("")
    return httpserver


@pytest.mark.parametrize(
    ("symbol", "spelling"),
    [
        ("BINANCE:BTCUSDT", "BINANCE:BTCUSDT"),
        ("BRK.B", "BRK.B"),
        ("BRK-B", "BRK.B"),
        ("FHFX:USD-BRL", "FHFX:USD-BRL"),
        ("USD-AUD", "USD-AUD"),
        ("^GSPC", "^GSPC"),
        ("A&B=C/D", "A&B=C/D"),
    ],
)
def test_fetch_sends_the_key_in_a_header(server: HTTPServer, symbol: str, spelling: str) -> None:
    server.expect_oneshot_request(
        "/api/v1/quote", query_string={"symbol": spelling}, headers={"X-Finnhub-Token": KEY}
    ).respond_with_data(QUOTE)
    answer = Finnhub().fetch(Request("quote", (symbol,)))
    assert (answer.status, answer.symbols, answer.body) == (200, (symbol,), QUOTE.encode())
    assert quote_of(Finnhub().parse(answer)[symbol]).symbol == symbol
    assert KEY not in answer.url


def test_fetch_without_a_key_names_the_variable(settings: Settings) -> None:
    settings.FINNHUB_API_KEY = ""
    with pytest.raises(NotConfiguredError, match="set FINNHUB_API_KEY"):
        Finnhub().fetch(Request("quote", ("AAPL",)))


def test_price_that_contradicts_its_range_is_malformed() -> None:
    error = error_of(parse(QUOTE.replace("153.040", "15304.0")))
    assert (error.kind, error.message) == (ErrorKind.MALFORMED, "the price contradicts its own range")


def test_price_outside_of_the_days_range_passes() -> None:
    # Before and after the hours.
    assert price_of(parse(QUOTE.replace("153.040", "310.5"))) == Decimal("310.5")


@pytest.mark.parametrize("name", ["c", "t", "l", "pc", "error", "other"])
def test_quote_with_a_name_twice_is_malformed(name: str) -> None:
    error = error_of(parse(f'{{"{name}": 1, "{name}": 1, ' + QUOTE[1:]))
    assert (error.kind, error.message) == (ErrorKind.MALFORMED, "the answer gives a name twice")


@pytest.mark.parametrize(
    ("provider", "body", "variable"),
    [
        ("finnhub", {"error": "Invalid API key."}, "FINNHUB_API_KEY"),
        ("alpha_vantage", {"Error Message": "apikey"}, "ALPHA_VANTAGE_API_KEY"),
    ],
)
def test_refused_key_is_named_by_its_setting(provider: str, body: Any, variable: str) -> None:
    error = error_of(parse_one(provider, "AAPL", body))
    assert error.message == f"the provider refuses the key of {variable}"


def test_empty_error_is_none() -> None:
    assert price_of(parse('{"error": "", ' + QUOTE[1:])) == Decimal("153.040")
