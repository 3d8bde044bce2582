"""304 is answered only where the whole answer would be the same, and mostly without reading its rows."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from unittest.mock import patch
from uuid import UUID

import psycopg
import pytest
from django.db import connection
from django.http import HttpResponseNotModified
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries, Settings
from rest_framework.test import APIClient

from prices import clock
from prices.bars import making
from prices.bars.making import make_bars
from prices.bars.reading import LENGTHS
from prices.clock import database_now
from prices.database.uuid7 import first_id_at, new_ids
from prices.jobs.services import create_job
from prices.models import BarProgress, PollJob, PriceBar, PricePoint, SymbolAverage
from tests.emptying import empty_tables
from tests.examples import examples
from tests.logged import events_logged
from tests.prices.bars.definition import NOON

pytestmark = pytest.mark.django_db(transaction=True)

SECOND, MINUTE, HOUR, DAY = (timedelta(seconds=each) for each in (1, 60, 3600, 86_400))
SYMBOLS = ["AAPL", "MSFT"]
PROVIDERS = ["finnhub", "yfinance"]
CURRENCIES = ["USD", "EUR", None]


def add(
    symbol: str = "AAPL",
    *,
    provider: str = "finnhub",
    currency: str | None = "USD",
    price: str = "10",
    received_at: datetime | None = None,
    observed_at: datetime | None = None,
) -> UUID:
    """Store a point and its row of symbol_averages, as if received at this time; return their id."""
    received = received_at or database_now()
    (made,) = new_ids(1)
    point_id = UUID(int=first_id_at(received).int | made.int & ((1 << 80) - 1))
    common: dict[str, Any] = {
        "symbol": symbol,
        "price": Decimal(price),
        "currency": currency,
        "provider": provider,
        "observed_at": observed_at or received,
    }
    PricePoint.objects.create(id=point_id, precision="second", received_at=received, raw=point_id, **common)
    SymbolAverage.objects.create(event_id=point_id, window_size=4, **common)
    return point_id


def ask(api: APIClient, address: str, known: str | None = None) -> Any:
    answer: Any = api.get(address, headers={} if known is None else {"if-none-match": known})
    if hasattr(answer, "streaming_content"):
        answer.whole = b"".join(answer.streaming_content)
    else:
        answer.whole = answer.content
    return answer


# --- Whatever happens between two calls -----------------------------------------------------------


class World:
    """What is stored at first, and what may happen to it. Times are seconds before the beginning."""

    def __init__(self, now: datetime) -> None:
        empty_tables()
        self.now = now
        self.make()
        BarProgress.objects.update(backfill_from=None, hours_until=self.now - 3 * DAY)

    def at(self, seconds: int) -> datetime:
        return self.now - seconds * SECOND

    def point(self, symbol: str, provider: str, currency: str | None, came: int, late_by: int) -> None:
        received, observed = self.at(came), self.at(came + late_by)
        add(symbol, provider=provider, currency=currency, received_at=received, observed_at=observed)

    def correct(self, number: int, price: int) -> None:
        for row in SymbolAverage.objects.order_by("event_id")[number : number + 1]:
            row.average, row.window_size = Decimal(price), 5
            row.save(update_fields=["average", "window_size"])

    def change_price(self, number: int, price: int) -> None:
        # By hand: nothing of the service does so.
        for model, key in ((PricePoint, "id"), (SymbolAverage, "event_id")):
            for row in model._default_manager.order_by(key)[number : number + 1]:
                model._default_manager.filter(pk=row.pk).update(price=price)

    def file_elsewhere(self, number: int, symbol: str) -> None:
        for row in SymbolAverage.objects.order_by("event_id")[number : number + 1]:
            SymbolAverage.objects.filter(pk=row.pk).update(symbol=symbol)

    def delete(self, number: int) -> None:
        for row in PricePoint.objects.order_by("id")[number : number + 1]:
            SymbolAverage.objects.filter(pk=row.pk).delete()
            row.delete()

    def publish(self, number: int) -> None:
        for row in PricePoint.objects.order_by("id")[number : number + 1]:
            PricePoint.objects.filter(pk=row.pk).update(published_at=self.now)

    def make(self) -> None:
        with patch.object(making, "database_now", return_value=self.now):
            make_bars()

    def change_bar(self, number: int) -> None:
        for bar in PriceBar.objects.order_by("start")[number : number + 1]:
            PriceBar.objects.filter(pk=bar.pk).update(high=bar.high + 1)

    def poll(self, seconds: int) -> None:
        job = create_job(symbols=["AAPL"], interval=60, provider=None, now=self.at(seconds))
        PollJob.objects.filter(id=job.id).update(accounted_until=self.at(seconds))

    def wait(self, seconds: int) -> None:
        self.now += seconds * SECOND
        BarProgress.objects.update(read_at=self.now)


# Before now; below zero: of a time to come.
CAME = st.sampled_from([0, 1, 130, 500, 4_000, 100_000, 4 * 10**6, -30])
LATE_BY = st.sampled_from([0, 1, 61, 4_000, 100_000])
NUMBER = st.integers(0, 5)
POINT = st.tuples(
    st.just("point"),
    st.tuples(
        st.sampled_from(SYMBOLS), st.sampled_from(PROVIDERS), st.sampled_from(CURRENCIES), CAME, LATE_BY
    ),
)
CHANGE = st.one_of(
    POINT,
    st.tuples(st.just("correct"), st.tuples(NUMBER, st.integers(1, 3))),
    st.tuples(st.just("change_price"), st.tuples(NUMBER, st.integers(1, 3))),
    st.tuples(st.just("file_elsewhere"), st.tuples(NUMBER, st.sampled_from(SYMBOLS))),
    st.tuples(st.just("delete"), st.tuples(NUMBER)),
    st.tuples(st.just("publish"), st.tuples(NUMBER)),
    st.tuples(st.just("make"), st.just(())),
    st.tuples(st.just("change_bar"), st.tuples(NUMBER)),
    st.tuples(st.just("poll"), st.tuples(st.sampled_from([0, 500, 100_000]))),
    st.tuples(st.just("wait"), st.tuples(st.sampled_from([1, 60, 200, 100_000, 3 * 10**6]))),
)


def rows_queries() -> st.SearchStrategy[str]:
    return st.builds(
        lambda *parts: "&".join(filter(None, parts)),
        st.sampled_from(["", "symbol=AAPL", "symbols=MSFT,AAPL", "symbols=MSFT,TSLA"]),
        st.sampled_from(["", "limit=1", "limit=2", "limit=5"]),
        st.sampled_from(["", "order=asc"]),
        st.sampled_from(["", "provider=finnhub"]),
        st.sampled_from(["", "since={0}", "until={0}", "since={1}&until={0}"]),
        st.sampled_from(["", "numbers=string", "format=csv&limit=3", "format=ndjson&limit=3"]),
    ).filter(lambda text: text.count("limit=") < 2)


def bars_queries() -> st.SearchStrategy[str]:
    return st.builds(
        lambda interval, *parts: "&".join([f"symbol=AAPL&interval={interval}", *filter(None, parts)]),
        st.sampled_from(list(LENGTHS)),
        st.sampled_from(["", "until={0}", "since={1}&until={0}", "since={1}"]),
        st.sampled_from(["", "limit=1", "limit=2"]),
        st.sampled_from(["", "provider=yfinance"]),
    )


ADDRESS = st.one_of(
    rows_queries().map("/prices/history?{}".format),
    rows_queries().map("/prices/history?distinct=observed&{}".format),
    rows_queries().map("/averages?{}".format),
    rows_queries().map("/averages?expand=inputs&{}".format),
    st.sampled_from(["symbol=AAPL", "symbols=MSFT,AAPL,TSLA", "symbol=AAPL&expand=inputs"]).map(
        "/averages/latest?{}".format
    ),
    bars_queries().map("/prices/bars?{}".format),
)


def moment(value: datetime) -> str:
    return f"{value:%Y-%m-%dT%H:%M:%S.%f}Z"


Happening = tuple[str, Any]


def check_what_is_told(
    stored: list[Happening],
    changes: list[Happening],
    addresses: list[str],
    *,
    until: int,
    span: int,
    hours_ago: int = 0,
) -> None:
    """Ask, have something happen, and ask again: with the tag of before and without."""
    world, api = World(database_now() - hours_ago * HOUR), APIClient()
    for name, values in stored:
        getattr(world, name)(*values)
    world.make()
    asked = [address.format(moment(world.at(until)), moment(world.at(until + span))) for address in addresses]
    with patch("prices.api.views.history.recent_now", side_effect=lambda: world.now):
        before = [ask(api, address) for address in asked]
        # Nothing has happened yet.
        for address, first in zip(asked, before, strict=True):
            assert ask(api, address, first["ETag"]).status_code == 304, address
        for name, values in changes:
            getattr(world, name)(*values)
        for address, first in zip(asked, before, strict=True):
            whole, told = ask(api, address), ask(api, address, first["ETag"])
            if told.status_code == 304:
                assert whole.whole == first.whole, address
                assert told["ETag"] == first["ETag"] == whole["ETag"]
            else:
                assert (told.status_code, told.whole) == (200, whole.whole), address


@hypothesis_settings(max_examples=examples(90))
@given(
    stored=st.lists(POINT, max_size=6),
    changes=st.lists(CHANGE, max_size=4),
    addresses=st.lists(ADDRESS, min_size=1, max_size=8, unique=True),
    until=st.sampled_from([0, 1, 61, 400, 3_700, 90_000, 3 * 10**6]),
    span=st.sampled_from([300, 200_000, 8 * 10**6]),
)
def test_answer_that_has_changed_is_never_304(
    stored: list[Happening], changes: list[Happening], addresses: list[str], until: int, span: int
) -> None:
    check_what_is_told(stored, changes, addresses, until=until, span=span)


OF_BARS = st.tuples(
    st.just("point"),
    st.tuples(
        st.just("AAPL"),
        st.sampled_from(PROVIDERS),
        st.sampled_from(CURRENCIES),
        st.sampled_from([1, 500, 4_000, 100_000, 600_000]),
        st.sampled_from([0, 61, 165, 190, 4_000]),
    ),
)


@hypothesis_settings(max_examples=examples(60))
@given(
    stored=st.lists(OF_BARS, min_size=1, max_size=4),
    changes=st.lists(
        st.one_of(
            OF_BARS,
            st.tuples(st.just("change_bar"), st.tuples(NUMBER)),
            st.tuples(st.just("poll"), st.tuples(st.sampled_from([100, 5_000, 10**6]))),
            st.tuples(st.just("wait"), st.tuples(st.sampled_from([60, 30_000, 100_000]))),
            st.tuples(st.just("make"), st.just(())),
        ),
        min_size=1,
        max_size=3,
    ),
    addresses=st.lists(bars_queries().map("/prices/bars?{}".format), min_size=2, max_size=8, unique=True),
    until=st.sampled_from([170, 200, 400, 3_700, 50_000, 300_000]),
    # Days are over at their exchange's hour.
    hours_ago=st.integers(0, 23),
)
def test_bars_that_have_changed_are_never_304(
    stored: list[Happening], changes: list[Happening], addresses: list[str], until: int, hours_ago: int
) -> None:
    check_what_is_told(stored, changes, addresses, until=until, span=10**6, hours_ago=hours_ago)


# --- What the two calls read ----------------------------------------------------------------------

ROWS = ["/prices/history", "/averages", "/averages?expand=inputs", "/averages?format=csv&limit=5"]
OF_SYMBOL = ["/averages/latest?symbol=AAPL", "/prices/bars?symbol=AAPL&interval=1m"]


@pytest.mark.parametrize("address", [*ROWS, *OF_SYMBOL])
@pytest.mark.parametrize("method", ["get", "head"])
def test_unchanged_answer_is_304_without_a_body(api: APIClient, address: str, method: str) -> None:
    add()
    first = ask(api, address)
    told = getattr(api, method)(address, headers={"if-none-match": first["ETag"]})
    assert isinstance(told, HttpResponseNotModified)
    assert (told.status_code, told.content) == (304, b"")
    for name in ("ETag", "Cache-Control", "Vary"):
        assert told[name] == first[name]
    assert first["Cache-Control"] == "no-cache"
    assert "Accept-Encoding" in first["Vary"]
    assert "Content-Type" not in told


@pytest.mark.parametrize("address", ROWS)
def test_unchanged_rows_are_not_read(
    api: APIClient,
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    monkeypatch.setattr(clock, "READ_AGAIN_S", 3600)
    add()
    tag = ask(api, address)["ETag"]
    # That of the versions goes past Django.
    with django_assert_num_queries(0):
        assert ask(api, address, tag).status_code == 304


def test_bars_that_are_over_are_not_read(api: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    hour_ago = database_now() - HOUR
    add(received_at=hour_ago)
    make_bars()
    BarProgress.objects.update(backfill_from=None)
    address = f"/prices/bars?symbol=AAPL&interval=1m&until={moment(hour_ago + 2 * MINUTE)}"
    first = ask(api, address)
    assert [bar["final"] for bar in first.json()["results"]] == [True]
    monkeypatch.setattr("prices.api.views.history.read_bars", lambda **_: pytest.fail("they were read"))
    assert ask(api, address, first["ETag"]).status_code == 304


def told_at(world: World, address: str, known: str | None = None) -> Any:
    with patch("prices.api.views.history.recent_now", return_value=world.now):
        return ask(APIClient(), address, known)


def test_minute_that_is_made_as_it_is_read_is_told_with_its_late_point() -> None:
    world = World(NOON + 40 * SECOND)
    # Over for two minutes, and newer than three before the last run.
    add(received_at=world.at(170), price="10")
    world.make()
    address = f"/prices/bars?symbol=AAPL&interval=1m&until={moment(world.at(160))}"
    first = told_at(world, address)
    assert [bar["final"] for bar in first.json()["results"]] == [True]
    add(received_at=world.at(165), price="11")
    assert told_at(world, address, first["ETag"]).json()["results"][0]["close"] == 11


def test_day_that_becomes_final_is_told() -> None:
    # New York's Monday is over at five in UTC.
    world = World(NOON + 11 * HOUR)
    add(received_at=NOON)
    world.make()
    address = "/prices/bars?symbol=AAPL&interval=1d&until=2026-11-24"
    first = told_at(world, address)
    assert [bar["final"] for bar in first.json()["results"]] == [False]
    world.now += 63 * MINUTE
    world.make()
    assert [bar["final"] for bar in told_at(world, address, first["ETag"]).json()["results"]] == [True]


def test_order_of_providers_changes_bars(api: APIClient, settings: Settings) -> None:
    hour_ago = database_now() - HOUR
    for provider, price in (("finnhub", "10"), ("yfinance", "11")):
        add(received_at=hour_ago, provider=provider, price=price)
    make_bars()
    BarProgress.objects.update(backfill_from=None)
    address = f"/prices/bars?symbol=AAPL&interval=1m&until={moment(hour_ago + 2 * MINUTE)}"
    settings.PROVIDER_ORDER = ["finnhub", "yfinance"]
    tag = ask(api, address)["ETag"]
    settings.PROVIDER_ORDER = ["yfinance", "finnhub"]
    assert ask(api, address, tag).json()["results"][0]["close"] == 11


def test_file_of_all_rows_has_no_tag(api: APIClient) -> None:
    add()
    answer = ask(api, "/averages?format=csv")
    assert "ETag" not in answer
    assert ask(api, "/averages?format=csv", "*").status_code == 200


def test_point_that_is_committed_after_newer_ones_is_told(api: APIClient) -> None:
    parameters = connection.get_connection_params() | {"cursor_factory": psycopg.Cursor}
    (older,) = new_ids(1)
    with psycopg.connect(**parameters) as other:
        other.execute(
            "INSERT INTO price_points (id, symbol, provider, price, precision, received_at, raw)"
            " VALUES (%(id)s, 'AAPL', 'finnhub', 1, 'unknown', clock_timestamp(), %(id)s)",
            {"id": older},
        )
        newer = add()
        first = ask(api, "/prices/history?symbol=AAPL")
        assert [row["event_id"] for row in first.json()["results"]] == [str(newer)]
        other.commit()
    told = ask(api, "/prices/history?symbol=AAPL", first["ETag"])
    assert [row["event_id"] for row in told.json()["results"]] == [str(newer), str(older)]


# --- Tags -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["{}", "*", "W/{}", '"other", {}', 'W/"other", W/{}  , "third"'])
def test_tag_is_found_in_a_list_weak_or_not(api: APIClient, of: str) -> None:
    add()
    tag = ask(api, "/averages")["ETag"].removeprefix("W/")
    assert ask(api, "/averages", of.format(tag)).status_code == 304


@pytest.mark.parametrize("known", ['"other"', "", "W/", '""', '"a*"'])
def test_other_tag_is_answered_in_full(api: APIClient, known: str) -> None:
    add()
    assert ask(api, "/averages", known).status_code == 200
    assert ask(api, "/averages", ask(api, "/averages")["ETag"][:-2] + '"').status_code == 200


def test_answers_of_other_forms_have_other_tags(api: APIClient) -> None:
    add()
    addresses = [
        "/averages?limit=5",
        "/averages?limit=6",
        "/averages?limit=5&numbers=string",
        "/averages?limit=5&expand=inputs",
        "/averages?limit=5&format=csv",
        "/averages?limit=5&format=ndjson",
        "/prices/history?limit=5",
    ]
    tags = [ask(api, address)["ETag"] for address in addresses]
    tags += [
        api.get("/averages?limit=5", headers={"accept": accept})["ETag"]
        for accept in ("text/csv", "application/x-ndjson")
    ]
    assert len(set(tags)) == len(tags)


def test_tag_is_of_one_version_of_the_service(api: APIClient, settings: Settings) -> None:
    add()
    tag = ask(api, "/averages")["ETag"]
    settings.VERSION = "9.9.9"
    assert ask(api, "/averages", tag).status_code == 200


@pytest.mark.parametrize("address", ["/averages?limit=x", "/averages/latest", "/prices/bars?symbol=AAPL"])
def test_query_that_cannot_be_used_is_400_with_a_tag_too(api: APIClient, address: str) -> None:
    assert ask(api, address, "*").status_code == 400


def test_connection_that_was_lost_costs_the_304_and_no_more(
    api: APIClient, caplog: pytest.LogCaptureFixture
) -> None:
    add()
    tag = ask(api, "/averages")["ETag"]
    assert ask(api, "/averages", tag).status_code == 304
    parameters = connection.get_connection_params() | {"cursor_factory": psycopg.Cursor}
    with psycopg.connect(**parameters, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 10000)", [connection.connection.info.backend_pid])
    with caplog.at_level("INFO"):
        assert ask(api, "/averages", tag).status_code == 200
    assert events_logged(caplog)["tag.not_read"] == 1
    assert ask(api, "/averages", tag).status_code == 304


def test_key_is_asked_for_before_a_304(api: APIClient, settings: Settings) -> None:
    add()
    tag = ask(api, "/averages")["ETag"]
    settings.API_AUTH = "keys"
    assert ask(api, "/averages", tag).status_code == 401


@pytest.mark.parametrize(
    "address", ["/prices/latest?symbol=SIM-A&fetch=never", "/symbols", "/jobs", "/livez"]
)
def test_what_changes_with_time_alone_has_no_tag(api: APIClient, address: str) -> None:
    assert "ETag" not in api.get(address)
