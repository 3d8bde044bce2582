"""GET /prices/latest of several symbols, and without asking anybody."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_django import DjangoAssertNumQueries, Settings
from pytest_httpserver import HTTPServer
from rest_framework.test import APIClient
from werkzeug import Request, Response

from prices.models import PricePoint, RawMarketData
from tests.prices.two_providers import (
    KEYS,
    TwoProviders,
    add_point,
    alpha_vantage_quote,
    finnhub_quote,
    two_providers,
    two_servers,
)

pytestmark = pytest.mark.django_db(transaction=True)
UNKNOWN = '{"c":0,"d":null,"dp":null,"h":0,"l":0,"o":0,"pc":0,"t":0}'


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, HTTPServer]]:
    with two_servers() as found:
        yield found


@pytest.fixture
def providers(
    servers: dict[str, HTTPServer], settings: Settings, own_counts: object
) -> Iterator[TwoProviders]:
    with two_providers(servers, settings) as found:
        yield found


def finnhub_prices(providers: TwoProviders, **prices: str) -> None:
    """Let Finnhub know these symbols alone."""

    def answer(request: Request) -> Response:
        price = prices.get(request.args["symbol"])
        return Response(UNKNOWN if price is None else finnhub_quote(price))

    providers.handle("finnhub", answer)


def ask(api: APIClient, query: str) -> list[dict[str, Any]]:
    answer = api.get(f"/prices/latest?{query}")
    assert answer.status_code == 200, answer.content
    assert answer["Cache-Control"] == "no-store"
    results: list[dict[str, Any]] = json.loads(answer.content)["results"]
    return results


def test_each_symbol_has_its_price_or_its_problem_in_the_order_asked_for(
    api: APIClient, providers: TwoProviders, settings: Settings
) -> None:
    settings.PROVIDER_ORDER = ["finnhub"]
    add_point("finnhub", symbol="STORED", price="3.50", observed_s_ago=2, received_s_ago=1)
    finnhub_prices(providers, MSFT="2.25", AAPL="1.10")
    msft, nope, stored, aapl = ask(api, "symbols=msft,NOPE,STORED,AAPL,MSFT")
    assert (msft["symbol"], msft["price"], msft["provider"]) == ("MSFT", 2.25, "finnhub")
    assert set(msft) == {"symbol", "price", "timestamp", "provider"}
    assert (stored["price"], aapl["price"]) == (3.5, 1.1)
    assert (nope["symbol"], nope["problem"]["status"]) == ("NOPE", 404)
    assert nope["problem"]["type"] == "urn:marketdata:unknown-symbol"
    # What was stored is not asked for, and nobody is asked twice.
    assert providers.requests("finnhub") == 3
    assert PricePoint.objects.count() == 3


def test_stored_prices_take_no_query(
    api: APIClient, django_assert_num_queries: DjangoAssertNumQueries, settings: Settings
) -> None:
    settings.PROVIDER_ORDER = ["finnhub"]
    symbols = [f"S{number}" for number in range(100)]
    for symbol in symbols:
        add_point("finnhub", symbol=symbol, observed_s_ago=2, received_s_ago=1)
    query = f"provider=finnhub&symbols={','.join(symbols)}"
    assert [row["symbol"] for row in ask(api, query)] == symbols
    with django_assert_num_queries(0):
        assert all("price" in row for row in ask(api, query))


def test_what_one_provider_lacks_is_asked_of_the_next(api: APIClient, providers: TwoProviders) -> None:
    finnhub_prices(providers, MSFT="2")
    providers.answer("alpha_vantage", alpha_vantage_quote("9.5"))
    msft, aapl = ask(api, "symbols=MSFT,AAPL&expand=quality")
    assert (msft["provider"], msft["attempts"]) == ("finnhub", [])
    assert (aapl["provider"], aapl["price"]) == ("alpha_vantage", 9.5)
    assert [attempt["error"] for attempt in aapl["attempts"]] == ["unknown_symbol"]


def test_symbols_beyond_the_budget_say_when_to_ask_again(
    api: APIClient, providers: TwoProviders, settings: Settings
) -> None:
    settings.PROVIDER_ORDER = ["finnhub"]
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"finnhub": "2/1m"}
    finnhub_prices(providers, A="1", B="2", C="3", D="4")
    found = ask(api, "symbols=A,B,C,D")
    assert sum("price" in row for row in found) == 2
    for row in (row for row in found if "problem" in row):
        assert (row["problem"]["status"], row["problem"]["type"]) == (429, "urn:marketdata:budget-used")
        assert 0 < row["problem"]["retry_after"] <= 61


def test_provider_that_hangs_costs_its_own_symbols_alone(
    api: APIClient, providers: TwoProviders, settings: Settings
) -> None:
    settings.PROVIDER_ORDER, settings.LATEST_DEADLINE_S = ["finnhub"], 1

    def answer(request: Request) -> Response:
        if request.args["symbol"] == "SLOW":
            providers.release.wait(30)
        return Response(finnhub_quote("1"))

    providers.handle("finnhub", answer)
    began = time.monotonic()
    slow, *others = ask(api, "symbols=SLOW,A,B,C")
    assert time.monotonic() - began < 10
    assert slow["problem"]["type"] == "urn:marketdata:provider-timeout"
    assert ["price" in row for row in others] == [True] * 3


def test_answer_is_200_even_if_every_symbol_failed(api: APIClient, providers: TwoProviders) -> None:
    for name in KEYS:
        providers.answer(name, "down", status=503)
    assert [row["problem"]["status"] for row in ask(api, "symbols=A,B")] == [502, 502]


def test_provider_without_key_is_told_of_each(api: APIClient, settings: Settings) -> None:
    settings.FINNHUB_API_KEY = ""
    (row,) = ask(api, "symbols=A&provider=finnhub")
    assert row["problem"]["variable"] == "FINNHUB_API_KEY"


def test_age_is_refused_by_symbol(api: APIClient, providers: TwoProviders, settings: Settings) -> None:
    settings.PROVIDER_ORDER = ["finnhub"]

    def answer(request: Request) -> Response:
        return Response(finnhub_quote("1", observed_s_ago=100 if request.args["symbol"] == "OLD" else 0))

    providers.handle("finnhub", answer)
    young, old = ask(api, "symbols=YOUNG,OLD&max_age=60")
    assert "price" in young
    assert old["problem"]["type"] == "urn:marketdata:too-old"
    assert old["problem"]["age_seconds"] >= 100


def test_symbols_of_the_simulator_have_prices(api: APIClient) -> None:
    found = ask(api, "symbols=SIM-A,SIM-B")
    assert [row["provider"] for row in found] == ["simulated"] * 2
    assert RawMarketData.objects.count() == 1


@pytest.mark.parametrize("query", ["symbol=AAPL", "symbols=AAPL,MSFT"])
def test_nobody_is_asked_where_that_is_said(api: APIClient, providers: TwoProviders, query: str) -> None:
    add_point("yfinance", symbol="AAPL", price="7", observed_s_ago=4000, received_s_ago=3999)
    body = json.loads(api.get(f"/prices/latest?{query}&fetch=never").content)
    rows = body.get("results", [body])
    assert (rows[0]["price"], rows[0]["provider"]) == (7, "yfinance")
    assert all(row["problem"]["type"] == "urn:marketdata:no-stored-price" for row in rows[1:])
    assert providers.requests("finnhub") == providers.requests("alpha_vantage") == 0


def test_stored_price_of_days_ago_is_found_and_one_of_weeks_is_not(api: APIClient) -> None:
    day = 86_400
    add_point("finnhub", symbol="DAYS", observed_s_ago=3 * day, received_s_ago=3 * day)
    add_point("finnhub", symbol="WEEKS", observed_s_ago=15 * day, received_s_ago=15 * day)
    assert api.get("/prices/latest?symbol=DAYS&fetch=never").status_code == 200
    answer = api.get("/prices/latest?symbol=WEEKS&fetch=never")
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:marketdata:no-stored-price"
    too_old = api.get("/prices/latest?symbol=DAYS&fetch=never&max_age=60")
    assert too_old.json()["type"] == "urn:marketdata:too-old"


@pytest.mark.parametrize(
    ("query", "field", "problem"),
    [
        ("symbols=A&symbol=B", "symbols", "is given together with symbol"),
        ("symbols=A,SIM-B", "symbols", "mixes simulated and real symbols"),
        ("symbols=SIM-A&provider=finnhub", "symbols", "cannot be served by finnhub"),
        ("symbols=", "symbols", "'' is not a symbol"),
        ("symbols=" + ",".join(f"S{number}" for number in range(101)), "symbols", "has 101 symbols"),
        ("symbols=A&fetch=always", "fetch", "is not known"),
        ("fetch=never", "symbol", "is required"),
    ],
)
def test_fault_is_named(api: APIClient, query: str, field: str, problem: str) -> None:
    answer = api.get(f"/prices/latest?{query}")
    assert answer.status_code == 400
    assert [(error["field"], error["problem"]) for error in answer.json()["errors"]] == [(field, problem)]
