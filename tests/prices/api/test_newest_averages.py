"""GET /averages/latest: of each symbol its newest average, in each of its currencies."""

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from prices import clock
from prices.clock import database_now, recent_now
from prices.database.uuid7 import first_id_at, new_ids
from prices.models import SymbolAverage

pytestmark = pytest.mark.django_db


def add(
    symbol: str,
    *,
    price: str = "1.50",
    average: str | None = "1.250",
    currency: str | None = "USD",
    days_ago: float = 0,
) -> str:
    """Store an average, and return its id."""
    (event_id,) = new_ids(1)
    if days_ago:
        moment = first_id_at(database_now() - timedelta(days=days_ago))
        event_id = UUID(int=moment.int | event_id.int & ((1 << 80) - 1))
    SymbolAverage.objects.create(
        event_id=event_id,
        symbol=symbol,
        price=Decimal(price),
        currency=currency,
        average=average and Decimal(average),
        window_size=5 if average else 1,
        provider="finnhub",
    )
    return str(event_id)


def ask(api: APIClient, query: str) -> list[dict[str, Any]]:
    answer = api.get(f"/averages/latest?{query}")
    assert answer.status_code == 200, answer.content
    assert answer["Cache-Control"] == "no-cache"
    results: list[dict[str, Any]] = json.loads(answer.content)["results"]
    return results


def ids(entry: dict[str, Any]) -> list[str]:
    return [row["event_id"] for row in entry["averages"]]


def test_each_symbol_has_its_newest_average_in_the_order_asked_for(api: APIClient) -> None:
    for symbol in ("MSFT", "AAPL", "TSLA"):
        add(symbol)
    msft, aapl = add("MSFT"), add("AAPL", average=None)
    found = ask(api, "symbols=msft,AAPL,MSFT")
    assert [(entry["symbol"], ids(entry)) for entry in found] == [("MSFT", [msft]), ("AAPL", [aapl])]
    assert found[1]["averages"][0]["average"] is None


@pytest.mark.parametrize("query", ["", "&expand=inputs", "&numbers=string", "&expand=inputs&numbers=string"])
def test_rows_are_those_of_averages(api: APIClient, query: str) -> None:
    add("AAPL")
    add("AAPL")
    (expected,) = api.get(f"/averages?symbol=AAPL&limit=1{query}").json()["results"]
    answer = api.get(f"/averages/latest?symbol=AAPL{query}")
    assert json.loads(answer.content)["results"] == [{"symbol": "AAPL", "averages": [expected]}]
    assert b'"average":"1.250"' in answer.content if "string" in query else b'"average":1.250,'


def test_symbol_has_one_for_each_currency_the_newest_first(api: APIClient) -> None:
    add("VOD", currency=None)
    pence, none, pounds = (add("VOD", currency=currency) for currency in ("GBp", None, "GBP"))
    assert ids(ask(api, "symbol=VOD")[0]) == [pounds, none, pence]


def test_currency_of_long_ago_is_left_out_where_there_is_a_newer_one(api: APIClient) -> None:
    add("VOD", currency="GBP", days_ago=33)
    pence = add("VOD", currency="GBp", days_ago=31)
    assert ids(ask(api, "symbol=VOD")[0]) == [pence]


def test_newest_of_all_is_given_where_there_was_none_for_long(api: APIClient) -> None:
    add("OLD", currency="EUR", days_ago=500)
    old, new = add("OLD", days_ago=400), add("NEW")
    assert [ids(entry) for entry in ask(api, "symbols=OLD,NEW")] == [[old], [new]]


def test_symbol_without_average_has_its_problem(api: APIClient) -> None:
    add("AAPL")
    aapl, nope = ask(api, "symbols=AAPL,NOPE")
    assert set(aapl) == {"symbol", "averages"}
    assert nope == {
        "symbol": "NOPE",
        "problem": {
            "type": "urn:marketdata:no-average",
            "title": "No average",
            "status": 404,
            "detail": "There is no average of NOPE.",
        },
    }


def test_average_of_a_time_to_come_is_left_out(api: APIClient) -> None:
    add("AAPL", days_ago=-1)
    assert set(ask(api, "symbol=AAPL")[0]) == {"symbol", "problem"}


def test_all_symbols_take_one_query(
    api: APIClient, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    monkeypatch.setattr(clock, "READ_AGAIN_S", 3600)
    symbols = [f"S{number}" for number in range(20)]
    for symbol in symbols:
        add(symbol)
    recent_now()
    with django_assert_num_queries(1):
        assert all("averages" in entry for entry in ask(api, "symbols=" + ",".join(symbols)))


@pytest.mark.parametrize(
    ("query", "field", "problem"),
    [
        ("", "symbols", "is required"),
        ("symbol=A&symbols=B", "symbols", "is given together with symbol"),
        ("symbols=" + ",".join(f"S{number}" for number in range(101)), "symbols", "has 101 symbols"),
        ("symbol=%20", "symbol", "is not a symbol"),
        ("symbol=A&expand=quality", "expand", "is not known"),
        ("symbol=A&numbers=float", "numbers", "is not known"),
        ("symbol=A&limit=1", "limit", "is not a parameter of this call"),
    ],
)
def test_fault_is_named(api: APIClient, query: str, field: str, problem: str) -> None:
    answer = api.get(f"/averages/latest?{query}")
    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert (error["field"], error["problem"]) == (field, problem)
