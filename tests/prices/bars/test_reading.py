"""Bars as callers read them: one provider each, open ones too, and honest about what may still change."""

from collections import defaultdict
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import Settings
from rest_framework.test import APIClient

from prices.bars import making
from prices.bars.joining import Bar
from prices.bars.making import make_bars
from prices.bars.reading import LENGTHS, read_bars
from prices.clock import database_now
from prices.models import BarProgress, PollJob, PriceBar, PricePoint
from tests.conftest import MakeJob
from tests.examples import examples
from tests.prices.bars.definition import NOON, SECOND, Key, Values, bars_of, store

pytestmark = pytest.mark.django_db(transaction=True)
ORDER = ["finnhub", "yfinance", "alpha_vantage"]
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def order(settings: Settings) -> None:
    settings.PROVIDER_ORDER = ORDER


def read(interval: str = "1m", symbol: str = "AAPL", **asked: Any) -> list[Bar]:
    defaults = {"since": NOON - 7 * DAY, "until": NOON + 30 * DAY, "provider": None, "limit": 10_000}
    return read_bars(symbol, interval, **{**defaults, "now": database_now(), **asked})


def expected(points: list[PricePoint], interval: str, symbol: str) -> list[tuple[datetime, str, str, Values]]:
    """Return the bars by the definition: of each start those of the first provider."""
    stored = "1m" if interval == "5m" else interval
    found = [
        (_start(key, interval), key[3], key[4], values)
        for key, values in bars_of(points).items()
        if (key[0], key[1]) == (symbol, stored)
    ]
    parts: dict[tuple[datetime, str, str], list[Values]] = defaultdict(list)
    for start, provider, currency, values in found:
        parts[start, provider, currency].append(values)
    joined = sorted((*key, _join(values)) for key, values in parts.items())
    chosen = []
    for _, bars in groupby(joined, key=lambda bar: bar[0]):
        of_start = list(bars)
        first = min((provider for _, provider, _, _ in of_start), key=ORDER.index)
        chosen += [bar for bar in of_start if bar[1] == first]
    return chosen


def _start(key: Key, interval: str) -> datetime:
    return key[2] - timedelta(minutes=key[2].minute % 5) if interval == "5m" else key[2]


def _join(parts: list[Values]) -> Values:
    parts.sort(key=lambda part: part.first)
    return Values(
        parts[0].open,
        max(part.high for part in parts),
        min(part.low for part in parts),
        parts[-1].close,
        sum(part.samples for part in parts),
        parts[0].first,
        parts[-1].last,
    )


def values_of(bars: list[Bar]) -> list[tuple[datetime, str, str, Values]]:
    return sorted(
        (
            bar.start,
            bar.provider,
            bar.currency,
            Values(
                bar.open,
                bar.high,
                bar.low,
                bar.close,
                bar.samples,
                bar.first_observed_at,
                bar.last_observed_at,
            ),
        )
        for bar in bars
    )


@hypothesis_settings(max_examples=examples(100))
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["finnhub", "yfinance"]),
            st.sampled_from(["USD", None]),
            st.sampled_from([0, 1, 59, 60, 240, 300, 3599, 3600, 8000]),
            st.integers(1, 3),
        ),
        max_size=10,
    ),
    st.sampled_from(["AAPL", "RELIANCE.NS", "NO.SUCHPLACE"]),
    st.integers(-2, 3),
    # What is asked for begins and ends anywhere.
    st.sampled_from([-DAY, timedelta(0), 59 * SECOND, 90 * SECOND, 3601 * SECOND]),
    st.sampled_from([30 * DAY, 1 * SECOND, 61 * SECOND, 250 * SECOND, 3700 * SECOND]),
)
def test_bars_are_those_of_the_definition_wherever_hours_are_open(
    points: list[tuple[str, str | None, int, int]],
    symbol: str,
    hours_until: int,
    since: timedelta,
    until: timedelta,
) -> None:
    PricePoint.objects.all().delete()
    PriceBar.objects.all().delete()
    make_bars()
    # From here on hours and days are made as they are read.
    open_from = NOON + timedelta(hours=hours_until)
    BarProgress.objects.update(hours_until=open_from)
    stored = [
        store(NOON + offset * SECOND, symbol=symbol, provider=provider, currency=currency, price=f"{price}")
        for provider, currency, offset, price in points
    ]
    with patch.object(making, "database_now", return_value=open_from):
        make_bars()
    for interval in LENGTHS:
        asked: dict[str, Any] = {"since": NOON + since, "until": NOON + until}
        found = values_of(read(interval, symbol, now=NOON + timedelta(hours=3), **asked))
        right = [bar for bar in expected(stored, interval, symbol) if NOON + since <= bar[0] < NOON + until]
        assert found == right, interval


@pytest.mark.parametrize("has_run", [True, False])
def test_open_minute_is_made_of_points_at_once(api: APIClient, has_run: bool) -> None:
    if has_run:
        make_bars()
    now = database_now()
    store(now - 2 * SECOND, price="5", received_at=now)
    store(now - SECOND, price="6", received_at=now)
    for interval in LENGTHS:
        last = api.get(f"/prices/bars?symbol=AAPL&interval={interval}").json()["results"][-1]
        assert (last["close"], last["final"], last["revision"]) == (6, False, 0), interval


def test_bar_is_final_once_nothing_can_come_any_more(make_job: MakeJob) -> None:
    job = make_job(["SIM-A"], interval=60)
    now = database_now()
    minute = (now - timedelta(minutes=10)).replace(second=0, microsecond=0)
    store(minute, symbol="SIM-A", provider="simulated")
    make_bars()
    asked: dict[str, Any] = {"symbol": "SIM-A", "since": minute, "until": now}
    PollJob.objects.update(accounted_until=minute)
    assert [bar.is_final for bar in read(**asked)] == [False]
    PollJob.objects.update(accounted_until=now)
    assert [bar.is_final for bar in read(**asked)] == [True]
    job.runs.create(id=job.id, due_at=minute, state="claimed", started_at=now)
    assert [bar.is_final for bar in read(**asked)] == [False]


@pytest.mark.parametrize(
    ("symbol", "day", "over"),
    [
        # A Tuesday, and a Friday, whose weekend is mostly told by then.
        ("AAPL", "2026-11-24", "2026-11-25T05:00"),
        ("AAPL", "2026-11-27", "2026-11-28T05:00"),
        ("7203.T", "2026-11-24", "2026-11-24T15:00"),
        ("SIM-A", "2026-11-24", "2026-11-25T00:00"),
    ],
)
def test_day_is_final_once_it_is_over_on_its_exchange(symbol: str, day: str, over: str) -> None:
    provider = "simulated" if symbol == "SIM-A" else "finnhub"
    store(datetime.fromisoformat(f"{day}T12:00Z"), symbol=symbol, provider=provider)
    over_at = datetime.fromisoformat(f"{over}Z")
    for after, is_final in [(119 * SECOND, False), (121 * SECOND, True)]:
        now = over_at + after
        with patch.object(making, "database_now", return_value=now):
            make_bars()
        (bar,) = read("1d", symbol, now=now)
        assert bar.is_final == is_final


def test_five_minutes_have_the_revisions_of_their_minutes() -> None:
    for minute in range(3):
        store(NOON + 60 * minute * SECOND)
    make_bars()
    assert [bar.revision for bar in read("5m")] == [1]
    for minute in (0, 2):
        store(NOON + 60 * minute * SECOND, price="11", received_at=NOON + timedelta(hours=1))
    make_bars()
    assert [bar.revision for bar in read("5m")] == [3]


def test_named_provider_has_its_own_bars() -> None:
    store(provider="finnhub")
    store(provider="yfinance", price="11")
    make_bars()
    assert [bar.provider for bar in read()] == ["finnhub"]
    (bar,) = read(provider="yfinance")
    assert (bar.provider, bar.close) == ("yfinance", Decimal(11))


def test_pages_have_every_bar(api: APIClient) -> None:
    for minute in range(7):
        for currency in ("USD", "EUR", "GBp", None):
            store(NOON + 60 * minute * SECOND, currency=currency)
    make_bars()
    address = "/prices/bars?symbol=AAPL&interval=1m&since=2026-11-23&until=2026-11-24&limit=3"
    starts = []
    while address:
        body = api.get(address).json()
        starts += [bar["start"] for bar in body["results"]]
        address = body["next"]
    assert starts == [f"2026-11-23T17:0{minute}:00Z" for minute in range(7) for _ in range(4)]


@pytest.mark.parametrize("interval", ["5m", "1h", "1d"])
def test_pages_of_longer_bars_have_every_bar(api: APIClient, interval: str) -> None:
    for minute in (0, 1, 4, 5, 21, 22, 61, 62, 63, 125, 1500, 2900, 2901):
        store(NOON + 60 * minute * SECOND)
    make_bars()
    address = f"/prices/bars?symbol=AAPL&interval={interval}&since=2026-11-20&until=2026-11-27"
    whole = api.get(address).json()["results"]
    assert sum(bar["samples"] for bar in whole) == 13
    for limit in (1, 2, 3):
        following, found = f"{address}&limit={limit}", []
        while following:
            body = api.get(following).json()
            assert len(body["results"]) <= limit
            found += body["results"]
            following = body["next"]
        assert found == whole


def test_answer_says_what_it_is(api: APIClient) -> None:
    store(price="10.50", currency=None)
    make_bars()
    body = api.get("/prices/bars?symbol=aapl&interval=1d&since=2026-11-01&until=2026-12-01").json()
    assert body["kind"] == "samples of quotes, not trades: there is no volume"
    (bar,) = body["results"]
    assert (bar["start"], bar["open"], bar["currency"]) == ("2026-11-23T00:00:00Z", 10.5, None)


@pytest.mark.parametrize("interval", LENGTHS)
@pytest.mark.parametrize(
    "moment", ["9999-12-31", "1970-01-02", "9999-12-31T23:59:59.999999Z", "1970-01-01T00:00:01Z"]
)
def test_any_time_can_be_asked_for(api: APIClient, interval: str, moment: str) -> None:
    store()
    make_bars()
    for query in (f"until={moment}", f"since={moment}&until=9999-12-31T23:59:59.999999Z"):
        answer = api.get(f"/prices/bars?symbol=AAPL&interval={interval}&{query}")
        assert answer.status_code in {200, 400}, answer.content


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("interval=1m", "symbol"),
        ("symbol=AAPL", "interval"),
        ("symbol=AAPL&interval=2m", "interval"),
        ("symbol=AAPL&interval=1m&since=2026-11-02&until=2026-11-01", "since"),
        ("symbol=AAPL&interval=1m&until=1970-01-01", "since"),
        ("symbol=AAPL&interval=1m&limit=0", "limit"),
    ],
)
def test_fault_is_named(api: APIClient, query: str, field: str) -> None:
    answer = api.get(f"/prices/bars?{query}")
    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == [field]
