"""GET /symbols: which symbols are known, and what is known of each."""

from datetime import timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from prices import clock
from prices.clock import database_now, recent_now
from prices.database.uuid7 import first_id_at, new_ids
from prices.jobs.services import create_job, stop_job
from prices.models import JobStatus, PollJob, PricePoint, SymbolAverage
from tests.conftest import MakeJob
from tests.examples import examples

pytestmark = pytest.mark.django_db


def add(
    symbol: str,
    *,
    provider: str = "finnhub",
    days_ago: float = 0,
    observed_s_ago: int | None = 0,
    price: str = "1.50",
) -> PricePoint:
    """Store a point that was received so many days ago, and observed some seconds before."""
    (point_id,) = new_ids(1)
    received_at = database_now() - timedelta(days=days_ago)
    if days_ago:
        point_id = type(point_id)(int=first_id_at(received_at).int | point_id.int & ((1 << 80) - 1))
    observed_at = None if observed_s_ago is None else received_at - timedelta(seconds=observed_s_ago)
    return PricePoint.objects.create(
        id=point_id,
        symbol=symbol,
        provider=provider,
        price=Decimal(price),
        currency="USD",
        observed_at=observed_at,
        precision="unknown" if observed_at is None else "second",
        received_at=received_at,
        raw=point_id,
    )


def add_average(symbol: str, *, average: str | None, window_size: int = 5) -> SymbolAverage:
    return SymbolAverage.objects.create(
        event_id=new_ids(1)[0],
        symbol=symbol,
        price=Decimal(1),
        average=average and Decimal(average),
        window_size=window_size,
        provider="finnhub",
    )


def ask(api: APIClient, query: str = "") -> list[dict[str, Any]]:
    answer = api.get(f"/symbols?{query}")
    assert answer.status_code == 200, answer.content
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


def names(rows: list[dict[str, Any]]) -> list[str]:
    return [row["symbol"] for row in rows]


def pages(api: APIClient, address: str) -> list[list[str]]:
    found, following = [], address
    while following:
        body = api.get(following).json()
        found.append(names(body["results"]))
        following = body["next"] and "{0.path}?{0.query}".format(urlsplit(body["next"]))
    return found


def test_known_are_those_of_jobs_and_those_with_a_price_of_the_week(
    api: APIClient, make_job: MakeJob
) -> None:
    active, paused = make_job(["SIM-A", "SIM-B"]), make_job(["SIM-P"])
    PollJob.objects.filter(id=paused.id).update(status=JobStatus.PAUSED)
    stop_job(make_job(["SIM-S"]).id)
    for symbol in ("AAPL", "SIM-B", "SIM-B"):
        add(symbol)
    add("MSFT", days_ago=6.9)
    add("OLD", days_ago=7.1)
    add("SOON", days_ago=-1)
    found = ask(api)
    assert names(found) == ["AAPL", "MSFT", "SIM-A", "SIM-B", "SIM-P"]
    of_active = [{"job_id": str(active.id), "status": "active"}]
    of_paused = [{"job_id": str(paused.id), "status": "paused"}]
    assert [row["jobs"] for row in found] == [[], [], of_active, of_active, of_paused]


def test_symbol_without_price_has_its_jobs_alone(api: APIClient, make_job: MakeJob) -> None:
    jobs = [make_job(["SIM-A"], interval=interval) for interval in (1, 5)]
    assert ask(api) == [
        {
            "symbol": "SIM-A",
            "providers": [],
            "last_price": None,
            "last_average": None,
            "jobs": [{"job_id": str(job.id), "status": "active"} for job in jobs],
        }
    ]


@pytest.mark.parametrize("observed_s_ago", [0, 3600, None])
def test_last_price_is_that_of_get_latest(api: APIClient, observed_s_ago: int | None) -> None:
    add("AAPL", provider="yfinance", observed_s_ago=7200, price="1.10")
    add("AAPL", observed_s_ago=observed_s_ago, price="2.20")
    latest = api.get("/prices/latest?symbol=AAPL&fetch=never&expand=quality").json()
    (row,) = ask(api)
    told = row["last_price"]
    assert told.pop("age_seconds") == pytest.approx(latest.pop("age_seconds"), abs=60)
    del latest["attempts"]
    assert told == latest
    assert row["providers"][0] == latest["provider"]
    assert set(row["providers"]) == {"finnhub", "yfinance"}


def test_price_of_before_the_last_day_counts_where_there_is_no_younger_one(api: APIClient) -> None:
    # Received days ago, and yet of a later moment than what came today.
    add("AAPL", provider="yfinance", days_ago=3)
    assert ask(api)[0]["last_price"]["provider"] == "yfinance"
    add("AAPL", observed_s_ago=5 * 86_400)
    (row,) = ask(api)
    assert row["last_price"]["provider"] == "finnhub"
    assert row["providers"] == ["finnhub", "yfinance"]


def test_price_keeps_its_digits(api: APIClient) -> None:
    add("AAPL", price="0.0000001200")
    assert b'"price":0.0000001200,' in api.get("/symbols").content


def test_last_average_is_the_newest(api: APIClient) -> None:
    add("AAPL")
    add_average("AAPL", average="1.5")
    newest = add_average("AAPL", average="2.50")
    assert ask(api)[0]["last_average"] == {
        "event_id": str(newest.event_id),
        "average": 2.5,
        "currency": None,
        "window_size": 5,
    }
    add_average("AAPL", average=None, window_size=1)
    assert ask(api)[0]["last_average"]["average"] is None


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ("aa", ["AAPL", "SIM-AA"]),
        ("AAPL", ["AAPL"]),
        ("m", ["MSFT", "SIM-AA"]),
        ("sim-", ["SIM-AA"]),
        ("^", ["^GSPC"]),
        ("_", []),
        ("%25", None),
    ],
)
def test_part_of_a_symbol_chooses(
    api: APIClient, make_job: MakeJob, part: str, found: list[str] | None
) -> None:
    make_job(["SIM-AA"])
    for symbol in ("AAPL", "MSFT", "^GSPC"):
        add(symbol)
    answer = api.get(f"/symbols?q={part}")
    if found is None:
        assert answer.json()["errors"][0]["field"] == "q"
    else:
        assert names(answer.json()["results"]) == found


@hypothesis_settings(max_examples=examples(100))
@given(
    st.sets(st.text("AB-", min_size=1, max_size=3), max_size=8),
    st.sets(st.text("AB-", min_size=1, max_size=3), min_size=1, max_size=5),
    st.sampled_from(["", "A", "B-"]),
    st.integers(1, 4),
)
def test_pages_are_the_whole_list(
    db: None, with_price: set[str], polled: set[str], part: str, limit: int
) -> None:
    PricePoint.objects.all().delete()
    PollJob.objects.update(status=JobStatus.STOPPED)
    job = create_job(symbols=["SIM-A"], interval=1, provider="simulated")
    PollJob.objects.filter(id=job.id).update(symbols=sorted(polled))
    for symbol in with_price:
        add(symbol)
    api = APIClient()
    whole = names(ask(api, "limit=1000"))
    assert set(whole) == with_price | polled
    found = pages(api, f"/symbols?limit={limit}" + (f"&q={part}" if part else ""))
    assert [name for page in found for name in page] == [name for name in whole if part in name]
    assert all(len(page) == limit for page in found[:-1])


def test_page_costs_no_query_a_symbol(
    api: APIClient,
    make_job: MakeJob,
    monkeypatch: pytest.MonkeyPatch,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    monkeypatch.setattr(clock, "READ_AGAIN_S", 3600)
    make_job([f"SIM-{number}" for number in range(20)])
    for number in range(20):
        add(f"S{number}")
    recent_now()
    with django_assert_num_queries(3):
        assert len(ask(api)) == 40
    with django_assert_num_queries(1):
        assert ask(api, "q=NOPE") == []


@pytest.mark.parametrize(
    ("query", "field", "problem"),
    [
        ("q=", "q", "is no part of a symbol"),
        ("q=A%20B", "q", "is no part of a symbol"),
        ("q=" + "A" * 33, "q", "is no part of a symbol"),
        ("cursor=%25", "cursor", "is no part of a symbol"),
        ("limit=1001", "limit", "is out of range"),
        ("limit=0", "limit", "is out of range"),
        ("symbol=AAPL", "symbol", "is not a parameter of this call"),
    ],
)
def test_fault_is_named(api: APIClient, query: str, field: str, problem: str) -> None:
    answer = api.get(f"/symbols?{query}")
    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert (error["field"], error["problem"]) == (field, problem)
