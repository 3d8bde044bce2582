"""Points and averages as they were received: pages, files, and every row once."""

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connection
from django.http import StreamingHttpResponse
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from prices.clock import database_now
from prices.database.uuid7 import first_id_at, new_ids
from prices.history import download, query
from prices.models import PricePoint, SymbolAverage
from tests.examples import examples

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
TABLES = ["/prices/history", "/averages"]


def add(
    symbol: str = "AAPL",
    *,
    provider: str = "finnhub",
    price: str = "1.50",
    currency: str | None = "USD",
    observed_at: datetime | None = NOON,
    received_at: datetime | None = None,
) -> PricePoint:
    """Store a point and its average."""
    (point_id,) = new_ids(1)
    if received_at is not None:
        point_id = type(point_id)(int=first_id_at(received_at).int | point_id.int & ((1 << 80) - 1))
    received = received_at or database_now()
    point = PricePoint.objects.create(
        id=point_id,
        symbol=symbol,
        provider=provider,
        price=Decimal(price),
        currency=currency,
        observed_at=observed_at,
        precision="unknown" if observed_at is None else "second",
        received_at=received,
        raw=point_id,
    )
    SymbolAverage.objects.create(
        event_id=point_id,
        symbol=symbol,
        price=Decimal(price),
        currency=currency,
        window_size=1,
        provider=provider,
        observed_at=observed_at,
    )
    return point


def pages(api: APIClient, address: str) -> Iterator[list[dict[str, Any]]]:
    following: str | None = address
    while following:
        answer = api.get(following)
        assert answer.status_code == 200, answer.content
        body = json.loads(answer.content)
        yield body["results"]
        following = body["next"] and "{0.path}?{0.query}".format(urlsplit(body["next"]))


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["event_id"] for row in rows]


def text_of(response: Any) -> str:
    assert isinstance(response, StreamingHttpResponse)
    return b"".join(response).decode()


# --- Pages ----------------------------------------------------------------------------------------


def test_point_is_told_as_it_is_stored(api: APIClient) -> None:
    point = add(price="0.0000001200", currency='A"b\\c, "d"\u00e9\n')
    answer = api.get("/prices/history")
    (row,) = answer.json()["results"]
    assert row == {
        "event_id": str(point.id),
        "symbol": "AAPL",
        "provider": "finnhub",
        "price": 0.00000012,
        "currency": point.currency,
        "observed_at": "2026-11-22T12:00:00Z",
        "precision": "second",
        "received_at": point.received_at.isoformat().replace("+00:00", "Z"),
        "raw_response_id": str(point.raw),
    }
    assert b'"price":0.0000001200,' in answer.content


@pytest.mark.parametrize("path", TABLES)
def test_what_is_not_known_is_null_and_numbers_may_be_texts(api: APIClient, path: str) -> None:
    add(price="10.10", currency=None, observed_at=None)
    (row,) = api.get(path, {"numbers": "string"}).json()["results"]
    assert (row["currency"], row["observed_at"], row["price"]) == (None, None, "10.10")
    assert row.get("average") is None


@pytest.mark.parametrize("path", TABLES)
@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("symbols", ["", "&symbols=MSFT,AAPL", "&symbol=AAPL"])
def test_every_row_is_on_one_page_in_order(api: APIClient, path: str, order: str, symbols: str) -> None:
    points = [add(symbol) for symbol in ["AAPL", "MSFT", "AAPL", "TSLA", "MSFT", "MSFT", "AAPL"]]
    wanted = symbols.partition("=")[2].split(",") if symbols else [None]
    expected = []
    for symbol in wanted:
        of_symbol = [str(point.id) for point in points if symbol in {None, point.symbol}]
        expected += of_symbol if order == "asc" else of_symbol[::-1]
    for limit in (1, 2, 3, 50):
        found = [ids(page) for page in pages(api, f"{path}?limit={limit}&order={order}{symbols}")]
        assert [each for page in found for each in page] == expected
        assert all(len(page) == limit for page in found[:-1])


def test_old_rows_of_the_first_symbol_come_before_new_ones_of_the_second(api: APIClient) -> None:
    now = database_now()
    old = [add("AAPL", received_at=now - timedelta(days=days)) for days in (400, 40, 2)]
    new = [add("MSFT") for _ in range(3)]
    expected = [str(point.id) for point in (*old[::-1], *new[::-1])]
    assert ids(api.get("/prices/history?symbols=AAPL,MSFT&limit=5").json()["results"]) == expected[:5]
    assert ids(api.get("/prices/history?symbol=AAPL&limit=2").json()["results"]) == expected[:2]
    assert ids(api.get("/prices/history?symbol=AAPL").json()["results"]) == expected[:3]


@pytest.mark.parametrize("path", TABLES)
def test_range_is_of_receipt_and_ends_before_until(api: APIClient, path: str) -> None:
    hours = [add(received_at=NOON + timedelta(hours=hour)) for hour in range(4)]
    found = api.get(path, {"since": "2026-11-22T13:00:00Z", "until": "2026-11-22T15:00:00+00:00"}).json()
    assert ids(found["results"]) == [str(hours[2].id), str(hours[1].id)]
    assert ids(api.get(path, {"since": "2026-11-23"}).json()["results"]) == []
    assert len(api.get(path, {"since": "2026-11-22", "until": "2026-11-23"}).json()["results"]) == 4


def test_history_of_a_provider_is_its_own(api: APIClient) -> None:
    add(provider="yfinance")
    point = add(provider="finnhub")
    assert ids(api.get("/prices/history?provider=Finnhub").json()["results"]) == [str(point.id)]


def test_row_of_a_time_to_come_is_left_out_until_then(api: APIClient) -> None:
    add(received_at=database_now() + timedelta(hours=1))
    assert api.get("/prices/history").json() == {"results": [], "next": None}


def test_repeats_of_a_providers_time_are_left_out(api: APIClient) -> None:
    def at(minute: int | None, provider: str = "finnhub") -> str:
        observed_at = None if minute is None else NOON + timedelta(minutes=minute)
        return str(add(provider=provider, observed_at=observed_at).id)

    first, _, other = at(1), at(1), at(1, "yfinance")
    none, second, also_none, _, back = at(None), at(2), at(None), at(None), at(1)
    changes = [first, other, none, second, also_none, back]
    rows = [row for page in pages(api, "/prices/history?distinct=observed&order=asc&limit=2") for row in page]
    # Of a point without a time nobody knows whether it is a repeat.
    assert [each for each in ids(rows) if each in changes] == changes
    assert len(rows) == 7


@hypothesis_settings(max_examples=examples(100))
@given(
    st.lists(st.tuples(st.sampled_from("AB"), st.sampled_from(["finnhub", "yfinance"])), max_size=12),
    st.sampled_from(["", "A", "B,A"]),
    st.sampled_from(["", "finnhub"]),
    st.sampled_from(["asc", "desc"]),
    st.integers(1, 5),
)
def test_pages_are_the_whole_list(
    stored: list[tuple[str, str]], symbols: str, provider: str, order: str, limit: int
) -> None:
    PricePoint.objects.all().delete()
    points = [add(symbol, provider=name) for symbol, name in stored]
    wanted = symbols.split(",") if symbols else [None]
    expected = [
        str(point.id)
        for symbol in wanted
        for point in (points if order == "asc" else points[::-1])
        if symbol in {None, point.symbol} and provider in {"", point.provider}
    ]
    query = f"order={order}&limit={limit}"
    query += f"&symbols={symbols}" if symbols else ""
    query += f"&provider={provider}" if provider else ""
    found = [each for page in pages(APIClient(), f"/prices/history?{query}") for each in ids(page)]
    assert found == expected


# --- Files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", TABLES)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7])
def test_files_have_every_row_of_the_pages(
    api: APIClient, monkeypatch: pytest.MonkeyPatch, path: str, count: int
) -> None:
    monkeypatch.setattr(download, "PAGE_ROWS", 2)
    for number in range(count):
        add(price=f"{number}.50", currency=None if number % 2 else 'a,"b"\r\n')
    rows = api.get(path, {"numbers": "string"}).json()["results"]
    lines = text_of(api.get(path, {"format": "ndjson", "numbers": "string"})).splitlines()
    assert [json.loads(line) for line in lines] == rows
    table = list(csv.DictReader(io.StringIO(text_of(api.get(path, {"format": "csv"})), newline="")))
    as_text = [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]
    assert table == as_text


def test_file_without_rows_has_its_header(api: APIClient) -> None:
    assert text_of(api.get("/prices/history?format=csv")) == (
        "event_id,symbol,provider,price,currency,observed_at,precision,received_at,raw_response_id\r\n"
    )
    assert text_of(api.get("/prices/history?format=ndjson")) == ""


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_file_ends_at_its_limit(api: APIClient, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(download, "PAGE_ROWS", 2)
    points = [add() for _ in range(4)]
    found = text_of(api.get("/prices/history", {"format": "ndjson", "limit": f"{limit}"})).splitlines()
    assert [json.loads(line)["event_id"] for line in found] == [str(each.id) for each in points[::-1][:limit]]


@pytest.mark.parametrize(
    ("accept", "found"),
    [
        ("text/csv", "text/csv"),
        ("application/x-ndjson", "application/x-ndjson"),
        ("application/json", "application/json"),
        ("*/*", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        ("text/csv;q=0.5,application/json", "application/json"),
        ("image/png", "application/json"),
    ],
)
def test_form_is_by_the_accept_header(api: APIClient, accept: str, found: str) -> None:
    answer = api.get("/averages", headers={"accept": accept})
    assert (answer["Content-Type"], answer["Vary"]) == (found, "Accept, Accept-Encoding")


def test_form_of_the_query_goes_before_the_header(api: APIClient) -> None:
    answer = api.get("/averages?format=csv", headers={"accept": "application/json"})
    assert answer["Content-Type"] == "text/csv"
    assert answer["Content-Disposition"] == 'attachment; filename="symbol_averages.csv"'


def test_file_reads_no_page_ahead(
    api: APIClient, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    monkeypatch.setattr(download, "PAGE_ROWS", 1)
    for _ in range(5):
        add()
    api.get("/livez")
    answer = api.get("/prices/history?format=ndjson&order=asc")
    pieces = iter(answer)
    next(pieces)
    with django_assert_num_queries(1):
        next(pieces)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("form", ["json", "csv", "ndjson"])
def test_what_cannot_be_read_is_a_problem_and_no_file_without_rows(
    api: APIClient, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(query, "_PAGE", "SELECT pg_terminate_backend(pg_backend_pid())")
    answer = api.get("/prices/history", {"format": form})
    assert (answer.status_code, answer["Content-Type"]) == (503, "application/problem+json")
    connection.close()


# --- Averages -------------------------------------------------------------------------------------


def test_inputs_are_the_points_of_the_window(api: APIClient) -> None:
    event_ids = new_ids(8)
    SymbolAverage.objects.bulk_create(
        SymbolAverage(
            event_id=event_id,
            symbol="AAPL",
            price=number,
            currency="GBp" if number == 3 else None,
            average=number if number > 6 else None,
            window_size=[1, 2, 1, 3, 4, 4, 5, 5][number - 1],
            provider="finnhub",
        )
        for number, event_id in enumerate(event_ids, start=1)
    )
    rows = api.get("/averages?symbol=AAPL&expand=inputs").json()["results"]
    told = [[each["price"] for each in row["inputs"]] for row in rows]
    # Pence are a series of their own.
    assert told == [[8, 7, 6, 5, 4], [7, 6, 5, 4, 2], [6, 5, 4, 2], [5, 4, 2, 1], [4, 2, 1], [3], [2, 1], [1]]
    assert all(row["inputs"][0]["event_id"] == row["event_id"] for row in rows)


# --- Faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "field", "problem"),
    [
        ("symbols=AAPL,,B", "symbols", "'' is not a symbol"),
        ("symbols=", "symbols", "'' is not a symbol"),
        ("symbols=a%00", "symbols", None),
        ("symbols=" + ",".join(f"S{number}" for number in range(101)), "symbols", "has 101 symbols"),
        ("symbol=A&symbols=B", "symbols", "is given together with symbol"),
        ("since=2026-13-01", "since", "is not a time"),
        ("since=2026-11-22T00:00:00", "since", "is not a time"),
        ("since=1969-12-31", "since", "is too early"),
        ("since=2026-11-22&until=2026-11-22", "since", "is not before until"),
        ("order=up", "order", "is not known"),
        ("limit=10001", "limit", "is out of range"),
        ("cursor=x", "cursor", "is not of a page"),
        (f"cursor={first_id_at(NOON)},", "cursor", "is not of a page"),
        (f"cursor={first_id_at(NOON)},AAPL", "cursor", "is of a page of other symbols"),
        (f"cursor={first_id_at(NOON)},AAPL&symbols=MSFT", "cursor", "is of a page of other symbols"),
        (f"cursor={first_id_at(NOON)}&symbols=MSFT", "cursor", "is of a page of other symbols"),
        ("numbers=float", "numbers", "is not known"),
        ("format=xml", "format", "is not known"),
        ("provider=nobody", "provider", "is not a provider"),
        ("before=x", "before", "is not a parameter of this call"),
    ],
)
@pytest.mark.parametrize("path", TABLES)
def test_fault_is_named(api: APIClient, path: str, query: str, field: str, problem: str | None) -> None:
    answer = api.get(f"{path}?{query}")
    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert error["field"] == field
    assert problem is None or error["problem"] == problem


def test_parameters_of_the_other_call_are_refused(api: APIClient) -> None:
    assert api.get("/prices/history?expand=inputs").status_code == 400
    assert api.get("/averages?distinct=observed").status_code == 400


@pytest.mark.parametrize("path", TABLES)
@pytest.mark.parametrize(
    "moment", ["9999-12-31", "1970-01-01", "9999-12-31T23:59:59.999999Z", "1970-01-01T00:00:00Z"]
)
def test_any_time_can_be_asked_for(api: APIClient, path: str, moment: str) -> None:
    add()
    for name in ("since", "until"):
        for order in ("asc", "desc"):
            assert api.get(path, {name: moment, "order": order}).status_code == 200
