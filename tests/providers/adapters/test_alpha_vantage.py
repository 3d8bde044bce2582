"""Alpha Vantage: its words, its days, its pairs."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pytest_django import Settings
from pytest_httpserver import HTTPServer

from providers.adapters.alpha_vantage import AlphaVantage
from providers.base import ErrorKind, NotConfiguredError, Quote, Request
from tests.providers.answers import error_of, kind_of, make_answer, parse_one, price_of, quote_of

KEY = "CANARYKEY1234567"

QUOTE = {
    "01. symbol": "IBM",
    "02. open": "218.2000",
    "05. price": "219.3000",
    "07. latest trading day": "2026-11-19",
    "09. change": "0.9300",
}
RATE = {
    "1. From_Currency Code": "USD",
    "3. To_Currency Code": "JPY",
    "5. Exchange Rate": "158.73166867",
    "6. Last Refreshed": "2026-11-20 15:29:44",
    "7. Time Zone": "UTC",
}
CSV_HEAD = "symbol,open,high,low,price,volume,latestDay,previousClose,change,changePercent\n"
CSV_ROW = "IBM,218.2000,220.9100,217.6150,219.3000,6154450,2026-11-19,218.3700,0.9300,0.4259%\n"


def parse(body: Any, symbol: str = "IBM", **answer: Any) -> Any:
    return parse_one("alpha_vantage", symbol, body, **answer)


def parse_quote(**fields: Any) -> Any:
    names = {"symbol": "01. symbol", "price": "05. price", "day": "07. latest trading day"}
    return parse({"Global Quote": {**QUOTE, **{names[field]: value for field, value in fields.items()}}})


def parse_rate(**fields: Any) -> Any:
    names = {"base": "1. From_Currency Code", "time": "6. Last Refreshed", "zone": "7. Time Zone"}
    rate = {**RATE, **{names[field]: value for field, value in fields.items()}}
    return parse({"Realtime Currency Exchange Rate": rate}, "USD/JPY")


BULK_ROW = {
    "symbol": "IBM",
    "timestamp": "2026-11-20 10:15:30.291",
    "low": "217.6150",
    "high": "220.9100",
    "close": "219.3000",
    "extended_hours_quote": "",
}


def parse_bulk(message: object = "", **fields: Any) -> Any:
    body = {"endpoint": "Realtime Bulk Quotes", "message": message, "data": [BULK_ROW | fields]}
    return parse(body)


def test_plan_is_one_request_a_symbol() -> None:
    assert AlphaVantage().plan(["IBM", "USD/JPY", "BTC/CNY", "BRK.B"]) == [
        Request("GLOBAL_QUOTE", ("IBM",)),
        Request("CURRENCY_EXCHANGE_RATE", ("USD/JPY",)),
        Request("CURRENCY_EXCHANGE_RATE", ("BTC/CNY",)),
        Request("GLOBAL_QUOTE", ("BRK.B",)),
    ]


def test_fallback_is_none() -> None:
    assert AlphaVantage().fallback(make_answer("alpha_vantage", ("IBM",), b"", status=500)) == []


def test_quote_has_the_day_and_no_currency() -> None:
    quote = quote_of(parse_quote())
    # 16:00 in New York, in winter.
    assert quote == Quote("IBM", quote.price, datetime(2026, 11, 19, 21, tzinfo=UTC), "day", None)
    assert str(quote.price) == "219.3"


def test_quote_of_a_day_that_is_not_over_is_not_later_than_its_answer() -> None:
    received_at = datetime(2026, 11, 19, 15, tzinfo=UTC)
    assert quote_of(parse({"Global Quote": QUOTE}, received_at=received_at)).observed_at == received_at


def test_quote_under_an_envelope_with_a_longer_name_is_read() -> None:
    assert str(price_of(parse({"Global Quote - DATA DELAYED BY 15 MINUTES": QUOTE}))) == "219.3"


@pytest.mark.parametrize("name", ["Global Quote - REALTIME", "global quote", "GLOBAL QUOTE - DELAYED"])
def test_quote_under_an_envelope_in_another_case_is_read(name: str) -> None:
    assert str(price_of(parse({name: QUOTE}))) == "219.3"


@pytest.mark.parametrize("name", ["Realtime Currency Exchange Rate - DATA DELAYED BY 15 MINUTES"])
def test_rate_under_an_envelope_with_a_longer_name_is_read(name: str) -> None:
    assert str(price_of(parse({name: RATE}, "USD/JPY"))) == "158.73166867"


def test_quote_beside_other_content_is_read() -> None:
    assert str(price_of(parse({"Meta Data": {}, "Global Quote": QUOTE}))) == "219.3"


def test_quote_without_a_day_has_no_time() -> None:
    quote = quote_of(parse_quote(day=None))
    assert (quote.observed_at, quote.precision) == (None, "unknown")


@pytest.mark.parametrize(
    "day", ["", "2026-11-22", "2026-02-30", "1989-12-31", "20261119", "2026-W47-4", "today", 5]
)
def test_quote_with_a_day_that_is_none_is_malformed(day: object) -> None:
    assert kind_of(parse_quote(day=day)) == ErrorKind.MALFORMED


def test_quote_of_a_day_that_has_begun_only_in_the_east_is_read() -> None:
    received_at = datetime(2026, 11, 18, 23, 30, tzinfo=UTC)
    quote = quote_of(parse({"Global Quote": QUOTE}, received_at=received_at))
    assert quote.observed_at == received_at


@pytest.mark.parametrize(
    "price", ["0.0000", "-1.00", "NaN", "", "None", None, True, [], {}, "1_000", "\uff11"]
)
def test_quote_with_a_price_that_is_none_is_malformed(price: object) -> None:
    assert kind_of(parse_quote(price=price)) == ErrorKind.MALFORMED


@pytest.mark.parametrize("symbol", ["AAPL", "", None, 5])
def test_quote_of_another_symbol_is_malformed(symbol: object) -> None:
    assert kind_of(parse_quote(symbol=symbol)) == ErrorKind.MALFORMED


def test_quote_given_twice_is_malformed() -> None:
    body = '{"Global Quote": {"01. symbol": "IBM", "05. price": "1", "05. price": "2"}}'
    assert kind_of(parse(body)) == ErrorKind.MALFORMED


@pytest.mark.parametrize("name", ["01. symbol", "04. low", "07. latest trading day", "10. change percent"])
def test_quote_with_a_name_twice_is_malformed(name: str) -> None:
    more = f'"{name}": "IBM", "{name}": "IBM"'
    body = json.dumps({"Global Quote": QUOTE})
    error = error_of(parse(body.replace("}}", f", {more}}}}}")))
    assert (error.kind, error.message) in {
        (ErrorKind.MALFORMED, "the answer gives a name twice"),
        # Not known whose it is.
        (ErrorKind.MALFORMED, "the answer is about another symbol"),
    }
    assert kind_of(parse(f"{{{more}, {body[1:]}")) == ErrorKind.MALFORMED


@pytest.mark.parametrize("other", ["global quote", "Global Quote - DATA DELAYED", "Stock Quotes"])
def test_second_quote_by_another_name_is_malformed(other: str) -> None:
    assert kind_of(parse({"Global Quote": QUOTE, other: QUOTE})) == ErrorKind.MALFORMED


def test_bulk_row_with_a_name_twice_costs_only_itself() -> None:
    rows = [BULK_ROW, BULK_ROW | {"symbol": "AAPL"}]
    body = json.dumps({"endpoint": "Realtime Bulk Quotes", "message": "", "data": rows})
    body = body.replace('"symbol": "IBM"', '"symbol": "IBM", "low": "1", "low": "1"')
    results = AlphaVantage().parse(make_answer("alpha_vantage", ("IBM", "AAPL"), body))
    assert kind_of(results["IBM"]) == ErrorKind.MALFORMED
    assert isinstance(results["AAPL"], Quote), results["AAPL"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"Global Quote": {}},
        {"Realtime Currency Exchange Rate": {}},
        {"endpoint": "Realtime Bulk Quotes", "message": "", "data": []},
        CSV_HEAD,
    ],
)
def test_empty_answer_is_an_unknown_symbol(body: Any) -> None:
    assert kind_of(parse(body)) == ErrorKind.UNKNOWN_SYMBOL


@pytest.mark.parametrize("content", [[], None, "IBM", 5, [QUOTE]])
def test_quote_of_another_type_is_malformed(content: object) -> None:
    assert kind_of(parse({"Global Quote": content})) == ErrorKind.MALFORMED


@pytest.mark.parametrize("body", [{"Meta Data": {}}, {"detail": "?"}, {"endpoint": "?", "data": []}])
def test_answer_of_an_unknown_kind_is_malformed(body: Any) -> None:
    assert kind_of(parse(body)) == ErrorKind.MALFORMED


def test_rate_has_a_second_and_the_currency_it_is_in() -> None:
    quote = quote_of(parse_rate())
    assert (str(quote.price), quote.currency) == ("158.73166867", "JPY")
    assert (quote.observed_at, quote.precision) == (datetime(2026, 11, 20, 15, 29, 44, tzinfo=UTC), "second")


def test_rate_in_new_york_time_is_converted() -> None:
    quote = quote_of(parse_rate(time="2026-07-01 12:00:00", zone="US/Eastern"))
    assert quote.observed_at == datetime(2026, 7, 1, 16, tzinfo=UTC)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "../../etc/passwd", "America", "", None, 5, []])
def test_rate_in_a_zone_that_is_not_known_is_malformed(zone: object) -> None:
    assert kind_of(parse_rate(zone=zone)) == ErrorKind.MALFORMED


@pytest.mark.parametrize(
    "time", ["-", "2026-11-20", "2026-11-20T15:29:44", "2026-11-20 15:31:01", "2026-13-01 00:00:00"]
)
def test_rate_with_a_time_that_is_none_is_malformed(time: str) -> None:
    assert kind_of(parse_rate(time=time)) == ErrorKind.MALFORMED


def test_rate_of_another_pair_is_malformed() -> None:
    assert kind_of(parse_rate(base="EUR")) == ErrorKind.MALFORMED


def test_batch_row_that_is_none_costs_only_itself() -> None:
    rows = [None, {"1. symbol": "MSFT", "2. price": "85.5900", "4. timestamp": "2017-12-29 15:59:58"}]
    body = {"Meta Data": {"3. Time Zone": "US/Eastern"}, "Stock Quotes": rows}
    results = AlphaVantage().parse(make_answer("alpha_vantage", ("MSFT", "FB"), body))
    assert str(price_of(results["MSFT"])) == "85.59"
    assert kind_of(results["FB"]) == ErrorKind.MALFORMED


def test_batch_rows_stand_alone() -> None:
    rows = [
        {"1. symbol": "MSFT", "2. price": "85.5900", "4. timestamp": "2017-12-29 15:59:58"},
        {"1. symbol": "FB", "2. price": "--", "4. timestamp": "2017-12-29 15:59:59"},
    ]
    body = {"Meta Data": {"3. Time Zone": "US/Eastern"}, "Stock Quotes": rows}
    results = AlphaVantage().parse(make_answer("alpha_vantage", ("MSFT", "FB", "AAPL"), body))
    assert quote_of(results["MSFT"]).observed_at == datetime(2017, 12, 29, 20, 59, 58, tzinfo=UTC)
    assert kind_of(results["FB"]) == ErrorKind.MALFORMED
    assert kind_of(results["AAPL"]) == ErrorKind.UNKNOWN_SYMBOL


@pytest.mark.parametrize("space", ["\n", "\r\n\r\n", " " * 100, "\ufeff\n"])
def test_csv_behind_white_space_is_read(space: str) -> None:
    assert str(price_of(parse(space + CSV_HEAD + CSV_ROW + "\n"))) == "219.3"


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_csv_is_read(newline: str) -> None:
    quote = quote_of(parse((CSV_HEAD + CSV_ROW).replace("\n", newline)))
    assert (str(quote.price), quote.precision) == ("219.3", "day")


@pytest.mark.parametrize(
    "body",
    [
        CSV_HEAD + "IBM,218.2000,220.9100,217.6150,21",
        CSV_HEAD + CSV_ROW.replace("IBM", "AAPL"),
        CSV_HEAD + CSV_ROW.replace("219.3000", "n/a"),
        CSV_HEAD + CSV_ROW + CSV_ROW,
        CSV_HEAD + CSV_ROW.replace("\n", ",1\n"),
        CSV_HEAD + '"IBM',
        CSV_HEAD.replace("price", "value") + CSV_ROW,
        CSV_HEAD.replace("open", "price") + CSV_ROW,
        (CSV_HEAD + CSV_ROW).encode().replace(b"IBM", b"\xff"),
        CSV_HEAD + "A" * 200_000,
    ],
)
def test_csv_that_cannot_be_read_is_malformed(body: str | bytes) -> None:
    assert kind_of(parse(body)) == ErrorKind.MALFORMED


INVALID_KEY, RATE_LIMITED = ErrorKind.INVALID_KEY, ErrorKind.RATE_LIMITED
NOT_ENTITLED, MALFORMED = ErrorKind.NOT_ENTITLED, ErrorKind.MALFORMED
BURST = "consider spreading out your requests (1 request per second), 25 requests per day, premium endpoints"
DAILY = (
    "We have detected your API key as demo and our standard API rate limit is 25 requests per day. Premium."
)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"Error Message": "the parameter apikey is invalid or missing."}, INVALID_KEY),
        (
            {"Error Message": "Invalid API call. Please retry or visit the documentation"},
            ErrorKind.UNKNOWN_SYMBOL,
        ),
        ({"Note": "whatever"}, RATE_LIMITED),
        ({"Note": None}, ErrorKind.MALFORMED),
        ({"Information": "The **demo** API key is for demo purposes only."}, INVALID_KEY),
        ({"Information": BURST}, RATE_LIMITED),
        ({"Information": DAILY}, RATE_LIMITED),
        ({"Information": "visit premium for a higher API call volume"}, RATE_LIMITED),
        ({"Information": "visit premium for a higher API call frequency"}, RATE_LIMITED),
        ({"Information": "This is a premium endpoint."}, NOT_ENTITLED),
        ({"Information": "This is a premium endpoint. Premium plans lift the rate limit too."}, NOT_ENTITLED),
        ({"Information": "outputsize=full is a premium feature. Plans lift all rate limits."}, NOT_ENTITLED),
        ({"Information": "You have reached your daily limit. Premium plans have none."}, RATE_LIMITED),
        ({"Information": "Your free API quota of 25 requests/day is used up."}, RATE_LIMITED),
        ({"Information": "Too many requests."}, RATE_LIMITED),
        ({"Information": "Burst pattern detected."}, RATE_LIMITED),
        ({"Information": "Your API key has no entitlement to realtime data."}, NOT_ENTITLED),
        ({"Information": "Invalid API call. Please read the documentation."}, ErrorKind.UNKNOWN_SYMBOL),
        ({"Information": "The **demo** API key is limited to demo purposes."}, INVALID_KEY),
        ({"Information": "Welcome."}, MALFORMED),
        ({"Information": {"text": "premium"}}, MALFORMED),
        ({"INFORMATION": DAILY.upper()}, RATE_LIMITED),
        ({"error message": "Invalid API call."}, ErrorKind.UNKNOWN_SYMBOL),
        ({"note": "whatever", "Global Quote": QUOTE}, RATE_LIMITED),
        (
            {"message": "This is a premium endpoint. ARTIFICIAL", "data": [{"symbol": "IBM", "close": "1"}]},
            NOT_ENTITLED,
        ),
        ({"message": "THE SAMPLE DATA BELOW IS ARTIFICIAL.", "data": [{"symbol": "IBM"}]}, NOT_ENTITLED),
        ({"Information": "To access realtime data, please subscribe to a plan."}, NOT_ENTITLED),
        ({"Information": "This is a premium endpoint.", "Global Quote": QUOTE}, NOT_ENTITLED),
    ],
)
def test_notice_means(body: Any, kind: ErrorKind) -> None:
    assert kind_of(parse(body)) == kind


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (BURST, 1.0),
        ("API call frequency is 5 calls per minute and 500 calls per day", 60.0),
        ("a higher API call volume", 60.0),
        # Received at 10:30 in New York, so 13:30 hours before the next day there.
        (DAILY, 13.5 * 3600),
        ("our standard API rate limit is 25 requests per day", 13.5 * 3600),
        ("You have reached your daily limit.", 13.5 * 3600),
        ("Minute-level rate limit exceed. Stay under the requests per minute of your premium plan.", 60.0),
        ("Burst pattern detected. Query no more than 30 requests per second in a 1-minute window.", 1.0),
        ("Burst pattern detected.", 1.0),
        ("The quota of 25 requests/day is used up.", 13.5 * 3600),
    ],
)
def test_notice_of_a_limit_tells_how_long_to_wait(text: str, seconds: float) -> None:
    assert error_of(parse({"Information": text})).retry_after == seconds


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (500, b"", ErrorKind.UPSTREAM_ERROR),
        (302, b"", ErrorKind.UPSTREAM_ERROR),
        *(
            (status, {name: text}, ErrorKind.UPSTREAM_ERROR)
            for status in (204, 302, 500, 502, 503)
            for name, text in (
                ("Information", DAILY),
                ("Information", "This is a premium endpoint."),
                ("Error Message", "the parameter apikey is invalid or missing."),
                ("Note", "whatever"),
            )
        ),
        (502, "<html>", ErrorKind.UPSTREAM_ERROR),
        (503, {"Global Quote": QUOTE}, ErrorKind.UPSTREAM_ERROR),
        (429, b"", RATE_LIMITED),
        (403, {"Information": "This is a premium endpoint."}, NOT_ENTITLED),
        (429, {"Information": DAILY}, RATE_LIMITED),
        (429, {"message": "Too Many Requests"}, RATE_LIMITED),
        (429, {"Error Message": "Please slow down."}, RATE_LIMITED),
        (403, {"message": "Forbidden"}, ErrorKind.UPSTREAM_ERROR),
        (504, {"message": "Endpoint request timed out"}, ErrorKind.UPSTREAM_ERROR),
        (503, {"Error Message": "Service unavailable."}, ErrorKind.UPSTREAM_ERROR),
        (500, {"Note": "An internal error occurred."}, ErrorKind.UPSTREAM_ERROR),
        (400, {"Error Message": "Invalid API call."}, ErrorKind.UNKNOWN_SYMBOL),
        (200, b"", MALFORMED),
        (200, "<!DOCTYPE html>", ErrorKind.UPSTREAM_ERROR),
        (200, "\n" * 200 + "<html>", ErrorKind.UPSTREAM_ERROR),
    ],
)
def test_status_means(status: int, body: Any, kind: ErrorKind) -> None:
    assert kind_of(parse(body, status=status)) == kind


def test_error_repeats_nothing_that_the_provider_said() -> None:
    error = error_of(parse({"Information": f"We have detected your API key as {KEY}: 25 requests per day"}))
    assert KEY not in error.message


@pytest.fixture
def server(httpserver: HTTPServer, settings: Settings) -> HTTPServer:
    settings.ALPHA_VANTAGE_API_KEY = KEY
    settings.ALPHA_VANTAGE_BASE_URL = httpserver.url_for("/")
    return httpserver


def test_fetch_asks_for_a_listing(server: HTTPServer) -> None:
    query = {"function": "GLOBAL_QUOTE", "symbol": "BRK.B", "apikey": KEY}
    server.expect_oneshot_request("/query", query_string=query).respond_with_json({"Global Quote": QUOTE})
    answer = AlphaVantage().fetch(Request("GLOBAL_QUOTE", ("BRK.B",)))
    assert answer.url == server.url_for("/query?function=GLOBAL_QUOTE&symbol=BRK.B")
    assert (answer.provider, answer.symbols, answer.status) == ("alpha_vantage", ("BRK.B",), 200)


def test_fetch_asks_for_a_pair(server: HTTPServer) -> None:
    query = {
        "function": "CURRENCY_EXCHANGE_RATE",
        "from_currency": "USD",
        "to_currency": "JPY",
        "apikey": KEY,
    }
    body = {"Realtime Currency Exchange Rate": RATE}
    server.expect_oneshot_request("/query", query_string=query).respond_with_json(body)
    adapter = AlphaVantage()
    answer = adapter.fetch(adapter.plan(["USD/JPY"])[0])
    assert answer.status == 200
    assert quote_of(adapter.parse(answer)["USD/JPY"]).currency == "JPY"


def test_fetch_takes_the_key_out_of_the_limit_text(server: HTTPServer) -> None:
    text = f"We have detected your API key as {KEY} and our standard API rate limit is 25 requests per day."
    server.expect_request("/query").respond_with_json({"Information": text})
    answer = AlphaVantage().fetch(Request("GLOBAL_QUOTE", ("IBM",)))
    assert KEY.encode() not in answer.body
    assert b"[redacted]" in answer.body
    assert kind_of(AlphaVantage().parse(answer)["IBM"]) == RATE_LIMITED


def test_fetch_without_a_key_names_the_variable(settings: Settings) -> None:
    settings.ALPHA_VANTAGE_API_KEY = ""
    with pytest.raises(NotConfiguredError, match="set ALPHA_VANTAGE_API_KEY"):
        AlphaVantage().fetch(Request("GLOBAL_QUOTE", ("IBM",)))


@pytest.mark.parametrize("message", ["", " ", None])
def test_bulk_row_beside_an_empty_notice_is_a_quote(message: str | None) -> None:
    quote = quote_of(parse_bulk(message))
    assert str(quote.price) == "219.3"
    assert quote.observed_at == datetime(2026, 11, 20, 15, 15, 30, 291_000, tzinfo=UTC)


def test_bulk_row_of_extended_hours_is_from_the_close() -> None:
    quote = quote_of(parse_bulk(timestamp="2026-11-19 19:54:00.879", extended_hours_quote="219.9"))
    assert str(quote.price) == "219.3"
    assert quote.observed_at == datetime(2026, 11, 19, 21, tzinfo=UTC)


def test_bulk_row_with_a_notice_is_no_price() -> None:
    assert kind_of(parse_bulk("This is a premium endpoint.")) == ErrorKind.NOT_ENTITLED


@pytest.mark.parametrize("name", ["Note", "Information", "Error Message", "message"])
def test_empty_notice_is_none(name: str) -> None:
    assert str(price_of(parse({name: "", "Global Quote": QUOTE}))) == "219.3"


@pytest.mark.parametrize(
    "body",
    [
        {"Global Quote": QUOTE | {"05. price": "3105", "03. high": "19.42", "04. low": "19.10"}},
        CSV_HEAD + CSV_ROW.replace("219.3000,6154450", "2.193,6154450"),
        {"endpoint": "Realtime Bulk Quotes", "data": [BULK_ROW | {"close": "2193"}]},
    ],
)
def test_price_that_contradicts_its_range_is_malformed(body: Any) -> None:
    error = error_of(parse(body))
    assert (error.kind, error.message) == (ErrorKind.MALFORMED, "the price contradicts its own range")


def test_rate_that_contradicts_its_bid_is_malformed() -> None:
    rate = RATE | {"8. Bid Price": "1.587", "9. Ask Price": "1.588"}
    error = error_of(parse({"Realtime Currency Exchange Rate": rate}, "USD/JPY"))
    assert error.message == "the price contradicts its own range"
