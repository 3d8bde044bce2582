"""One hostile answer, or row of one, costs nothing but itself: its neighbours are stored and published."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from confluent_kafka import Consumer
from pytest_django import Settings
from pytest_httpserver import HTTPServer

from prices.models import PollRun, PricePoint, RawMarketData, RunState
from providers.adapters.yahoo import session as yahoo_session
from tests.conftest import MakeJob
from tests.polling import poll_job
from tests.providers.yahoo_bodies import ROW, quote_body

NOW = datetime.now(UTC)
SECOND = int(NOW.timestamp()) - 5
PRICES = {"AAPL": Decimal("150.25"), "IBM": Decimal("219.3")}
MIB = 1024 * 1024
# Each beside the symbol's own price 7.5, where it can be read at all.
READABLE = {
    "nul": rb'"\u0000"',
    "nul in a name": rb'{"\u0000": 1}',
    "lone surrogate": rb'"\ud800"',
    "surrogates in the wrong order": rb'"\udc00\ud800"',
    "number that fits nowhere": b"1e999999",
    "nearly 1 MiB": b'"' + b"x" * (MIB - 100) + b'"',
    "1 MiB of escapes": b'"' + rb"\u0041" * (MIB // 6 - 20) + b'"',
    "500 levels": b"[" * 500 + b"]" * 500,
}
UNREADABLE = {
    "nul byte": b'"\0"',
    "no utf-8": b'"\xff\xfe"',
    "over 1 MiB": b'"' + b"x" * MIB + b'"',
    "a hundred thousand levels": b"[" * 100_000,
    "another price": b'1, "c": 8.5',
    "cut": b'"',
}


def finnhub_body(price: object, more: bytes = b"0") -> bytes:
    return f'{{"c": {price}, "t": {SECOND}, "more": '.encode() + more + b"}"


@pytest.fixture
def finnhub(settings: Settings, httpserver: HTTPServer) -> HTTPServer:
    """Return a server that knows the prices of AAPL and IBM."""
    settings.FINNHUB_BASE_URL = httpserver.url_for("").rstrip("/")
    settings.FINNHUB_API_KEY = "canary-key-123456"
    for symbol, price in PRICES.items():
        serve_finnhub(httpserver, symbol, finnhub_body(price))
    return httpserver


def serve_finnhub(server: HTTPServer, symbol: str, body: bytes) -> None:
    server.expect_request("/api/v1/quote", query_string=f"symbol={symbol}").respond_with_data(body)


def stored() -> dict[str, Decimal]:
    """Return the prices that are stored, all of which Kafka has confirmed."""
    points = list(PricePoint.objects.all())
    assert all(point.published_at for point in points)
    return {point.symbol: point.price for point in points}


def published(topic: str, settings: Settings, *, count: int) -> dict[str, Decimal]:
    """Return the prices in the topic, `count` of them."""
    servers = settings.KAFKA_BOOTSTRAP_SERVERS
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": f"{topic}-read",
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    consumer.subscribe([topic])
    try:
        events = [
            json.loads(message.value() or b"", parse_float=Decimal)
            for message in consumer.consume(count, timeout=10)
        ]
    finally:
        consumer.close()
    return {event["symbol"]: Decimal(event["price"]) for event in events}


@pytest.mark.parametrize("more", READABLE.values(), ids=READABLE.keys())
def test_answer_that_the_database_cannot_hold_keeps_its_price(
    make_job: MakeJob, finnhub: HTTPServer, topic: str, more: bytes
) -> None:
    serve_finnhub(finnhub, "EVIL", finnhub_body("7.5", more))
    job = make_job(["AAPL", "EVIL", "IBM"], provider="finnhub")
    assert poll_job(job.id, now=NOW) == RunState.STORED
    assert stored() == {**PRICES, "EVIL": Decimal("7.5")}
    raw = RawMarketData.objects.get(symbols=["EVIL"])
    assert raw.outcome == "quote"
    assert (raw.payload is None) != (raw.body is None)


@pytest.mark.parametrize("more", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_answer_that_cannot_be_read_costs_only_itself(
    make_job: MakeJob, finnhub: HTTPServer, topic: str, more: bytes
) -> None:
    serve_finnhub(finnhub, "EVIL", finnhub_body("7.5", more))
    job = make_job(["AAPL", "EVIL", "IBM"], provider="finnhub")
    assert poll_job(job.id, now=NOW) == RunState.STORED
    assert stored() == PRICES
    outcomes = set(RawMarketData.objects.filter(symbols=["EVIL"]).values_list("outcome", flat=True))
    assert outcomes in ({"malformed"}, {"upstream_error"})
    run = PollRun.objects.get()
    assert (run.points, run.reason.partition(":")[0]) == (2, "EVIL")


def test_neighbours_of_a_hostile_answer_are_in_kafka(
    make_job: MakeJob, finnhub: HTTPServer, topic: str, settings: Settings
) -> None:
    serve_finnhub(finnhub, "EVIL", finnhub_body("7.5", READABLE["lone surrogate"]))
    serve_finnhub(finnhub, "WORSE", finnhub_body("7.5", UNREADABLE["over 1 MiB"]))
    job = make_job(["EVIL", "AAPL", "WORSE", "IBM"], provider="finnhub")
    assert poll_job(job.id, now=NOW) == RunState.STORED
    assert published(topic, settings, count=3) == {**PRICES, "EVIL": Decimal("7.5")}


@pytest.fixture
def yahoo(settings: Settings, httpserver: HTTPServer) -> Iterator[HTTPServer]:
    """Yield a server that plays Yahoo's hosts, but for the quotes."""
    settings.YAHOO_BASE_URL = httpserver.url_for("").rstrip("/")
    httpserver.expect_request("/").respond_with_data("", headers={"Set-Cookie": "A3=x"})
    httpserver.expect_request("/v1/test/getcrumb").respond_with_data("crumb")
    yahoo_session.forget_clients()
    yield httpserver
    yahoo_session.forget_clients()


@pytest.mark.parametrize(
    "evil",
    [
        {"regularMarketPrice": "7.5"},
        {"regularMarketPrice": float("nan")},
        {"regularMarketPrice": 7.5, "regularMarketTime": 10**30},
        {"regularMarketPrice": "\0"},
        {"regularMarketPrice": "\ud800"},
        {"regularMarketPrice": {"raw": 7.5}},
        {"regularMarketPrice": 10**13},
        {"regularMarketPrice": 7.5, "symbol": "\0"},
    ],
    ids=str,
)
def test_row_that_cannot_be_read_costs_only_itself(
    make_job: MakeJob, yahoo: HTTPServer, topic: str, evil: dict[str, object]
) -> None:
    rows = [{**ROW, "symbol": symbol, "regularMarketPrice": float(price)} for symbol, price in PRICES.items()]
    body = json.dumps(quote_body(rows[0], {**ROW, "symbol": "EVIL", "longName": "\0\ud800", **evil}, rows[1]))
    yahoo.expect_request("/v7/finance/quote").respond_with_data(body)
    job = make_job(["AAPL", "EVIL", "IBM"], provider="yfinance")
    assert poll_job(job.id, now=NOW) == RunState.STORED
    assert stored() == PRICES
    assert PollRun.objects.get().reason.startswith("EVIL: ")
    assert RawMarketData.objects.get().payload is None
