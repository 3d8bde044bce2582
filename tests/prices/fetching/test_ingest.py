from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.db import connection, transaction

from prices.database.uuid7 import new_ids
from prices.fetching.exchange import RoundTrip
from prices.fetching.ingest import store_round_trips
from prices.models import PricePoint, RawMarketData
from providers.base import ErrorKind, ProviderError, Quote, RawAnswer, Request, Results

NOW = datetime.now(UTC)
pytestmark = pytest.mark.django_db


def make_quote(symbol: str = "AAPL", price: str = "150.25") -> Quote:
    return Quote(symbol=symbol, price=Decimal(price), observed_at=NOW, precision="second", currency="USD")


def make_round_trip(body: bytes, *results: Quote, error: ProviderError | None = None) -> RoundTrip:
    symbols = tuple(quote.symbol for quote in results) or ("AAPL",)
    found: Results = {quote.symbol: quote for quote in results}
    if error is not None:
        found = dict.fromkeys(symbols, error)
    answer = RawAnswer(
        provider="finnhub",
        symbols=symbols,
        url="http://127.0.0.1/api/v1/quote?symbol=AAPL",
        status=200,
        headers={},
        body=body,
        received_at=NOW,
        latency_ms=12.5,
    )
    return RoundTrip(
        request=Request(call="quote", symbols=symbols),
        answer=answer,
        results=found,
        received_at=NOW,
        latency_ms=12.5,
    )


def store(*round_trips: RoundTrip) -> list[PricePoint]:
    with transaction.atomic():
        return store_round_trips(
            round_trips, raw_ids=new_ids(len(round_trips)), provider="finnhub", poll=None
        ).points


def test_ingest_stores_an_answer_and_its_point() -> None:
    (point,) = store(make_round_trip(b'{"c":150.25}', make_quote()))
    raw = RawMarketData.objects.get()
    assert point.raw == raw.id
    assert (raw.status, raw.outcome, raw.latency_ms, raw.body) == (200, "quote", 12.5, None)
    stored = PricePoint.objects.get()
    assert (stored.symbol, stored.price, stored.currency) == ("AAPL", Decimal("150.25"), "USD")
    assert (stored.observed_at, stored.received_at, stored.published_at) == (NOW, NOW, None)


def test_ingest_told_twice_stores_once_and_gives_what_is_there() -> None:
    # As after a commit whose answer was lost.
    round_trips = [
        make_round_trip(b'{"c":1}', make_quote("AAPL")),
        make_round_trip(b'{"c":2}', make_quote("MSFT")),
    ]
    raw_ids = new_ids(2)
    first, again = (
        store_round_trips(round_trips, raw_ids=raw_ids, provider="finnhub", poll=None).points
        for _ in range(2)
    )
    assert [point.id for point in first] == [point.id for point in again]
    assert (RawMarketData.objects.count(), PricePoint.objects.count()) == (2, 2)


def test_ingest_keeps_every_digit_of_the_payload() -> None:
    store(make_round_trip(b'{"c": 0.123456789012345678901234567890}', make_quote()))
    with connection.cursor() as cursor:
        cursor.execute("SELECT payload->>'c' FROM raw_market_data")
        assert cursor.fetchone() == ("0.123456789012345678901234567890",)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"",
        b"\xff\xfe",
        b'{"a": NaN}',
        b"[" * 10_000,
        b'{"a": "\\u0000"}',
        b'{"a": "\\ud800"}',
        b"1e999999",
    ],
)
def test_ingest_keeps_as_bytes_what_postgresql_cannot_hold_as_json(body: bytes) -> None:
    store(make_round_trip(body, make_quote()))
    raw = RawMarketData.objects.get()
    assert (raw.payload, bytes(raw.body or b"")) == (None, body)
    assert PricePoint.objects.count() == 1


def test_ingest_cuts_a_body_at_64_kib() -> None:
    store(make_round_trip(b"x" * 100_000, make_quote()))
    assert len(bytes(RawMarketData.objects.get().body or b"")) == 65_536


def test_ingest_of_hostile_answer_costs_only_itself() -> None:
    hostile = make_round_trip(b'{"a": "\\ud800"}', make_quote("EVIL"))
    points = store(
        make_round_trip(b"{}", make_quote("AAPL")), hostile, make_round_trip(b"{}", make_quote("IBM"))
    )
    assert sorted(point.symbol for point in points) == ["AAPL", "EVIL", "IBM"]
    assert RawMarketData.objects.count() == 3


def test_ingest_of_price_that_the_database_refuses_names_the_symbol() -> None:
    too_fine = make_quote("EVIL", "1.12345678901234567")
    with transaction.atomic():
        stored = store_round_trips(
            [make_round_trip(b"{}", make_quote("AAPL")), make_round_trip(b"{}", too_fine)],
            raw_ids=new_ids(2),
            provider="finnhub",
            poll=None,
        )
    assert [point.symbol for point in stored.points] == ["AAPL"]
    assert stored.refused == ["EVIL"]
    assert RawMarketData.objects.count() == 2


@pytest.mark.parametrize("kind", list(ErrorKind))
def test_ingest_keeps_an_error_of_every_kind(kind: ErrorKind) -> None:
    error = ProviderError(kind=kind, message="a reason")
    assert store(make_round_trip(b"{}", error=error)) == []
    raw = RawMarketData.objects.get()
    assert (raw.outcome, raw.message) == (kind, "a reason")
