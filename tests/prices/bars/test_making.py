"""Stored bars are those of their definition, in whatever order points come."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from prices.bars import making
from prices.bars.making import make_bars
from prices.clock import database_now
from prices.database.uuid7 import first_id_at
from prices.models import BarProgress, PriceBar, PricePoint
from tests.examples import examples
from tests.prices.bars.definition import NOON, SECOND, bars_of, store, stored_bars

pytestmark = pytest.mark.django_db(transaction=True)


def make() -> None:
    make_bars()
    assert stored_bars() == bars_of(PricePoint.objects.all())


@pytest.fixture
def hours_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    make_bars()
    BarProgress.objects.update(hours_until=NOON + timedelta(hours=3))


def bar(interval: str = "1m") -> PriceBar:
    return PriceBar.objects.get(interval=interval)


@pytest.mark.usefixtures("hours_are_over")
def test_samples_of_a_minute_become_its_bar_its_hours_and_its_days() -> None:
    for second, price in [(5, "10"), (10, "12"), (20, "9"), (59, "11")]:
        store(NOON + second * SECOND, price=price)
    make()
    found = bar()
    assert (found.open, found.high, found.low, found.close, found.samples) == (10, 12, 9, 11, 4)
    assert (found.start, found.first_observed_at) == (NOON, NOON + 5 * SECOND)
    assert bar("1h").start == NOON
    assert bar("1d").start == datetime(2026, 11, 23, tzinfo=UTC)


@pytest.mark.usefixtures("hours_are_over")
def test_late_point_changes_its_bars_and_raises_their_revision() -> None:
    store(NOON + 5 * SECOND, price="10")
    make()
    assert [each.revision for each in PriceBar.objects.all()] == [1, 1, 1]
    store(NOON + 2 * SECOND, price="8", received_at=NOON + timedelta(hours=1))
    make()
    assert {each.interval: (each.open, each.revision) for each in PriceBar.objects.all()} == {
        "1m": (8, 2),
        "1h": (8, 2),
        "1d": (8, 2),
    }


@pytest.mark.usefixtures("hours_are_over")
def test_correction_of_a_time_takes_the_place_of_what_was_said_before() -> None:
    store(price="1000")
    store(price="10")
    make()
    assert (bar().high, bar().samples) == (10, 1)
    store(price="11", received_at=NOON + timedelta(hours=1))
    make()
    assert (bar().high, bar().samples, bar().revision) == (11, 1, 2)


@pytest.mark.usefixtures("hours_are_over")
@pytest.mark.parametrize("provider", ["finnhub", "alpha_vantage"])
def test_price_of_a_time_to_come_is_no_sample_until_it_is_told_in_its_time(provider: str) -> None:
    precision = "day" if provider == "alpha_vantage" else "second"
    ahead, in_time = (timedelta(minutes=minutes) for minutes in (-3, 1))
    for made in (ahead, in_time):
        assert not PriceBar.objects.exists()
        # At the end of a minute, and of a day: its begin is not far ahead.
        moment = NOON + 59 * SECOND
        store(moment, provider=provider, precision=precision, received_at=moment + made)
        make()
    assert {(each.interval, each.samples) for each in PriceBar.objects.all()} == (
        {("1d", 1)} if precision == "day" else {("1m", 1), ("1h", 1), ("1d", 1)}
    )


@pytest.mark.usefixtures("hours_are_over")
@pytest.mark.parametrize("made", [timedelta(hours=-1), timedelta(hours=1)])
def test_price_without_a_time_whose_receipt_was_put_right_is_no_sample(made: timedelta) -> None:
    store(None, received_at=NOON, made_at=NOON + made)
    make()
    assert not PriceBar.objects.exists()


@pytest.mark.usefixtures("hours_are_over")
def test_repeats_of_a_time_change_nothing() -> None:
    store()
    make()
    before = bar()
    for hour in range(1, 50):
        store(received_at=NOON + timedelta(hours=hour))
    assert make_bars() == 0
    assert (bar().revision, bar().changed_at) == (1, before.changed_at)
    make()


@pytest.mark.usefixtures("hours_are_over")
def test_weekend_and_evening_belong_to_the_session_before() -> None:
    saturday = datetime(2026, 11, 28, 12, tzinfo=UTC)
    store(datetime(2026, 11, 27, 20, tzinfo=UTC), received_at=saturday)
    store(datetime(2026, 11, 28, 2, tzinfo=UTC))
    store(saturday)
    make()
    assert bar("1d").start == datetime(2026, 11, 27, tzinfo=UTC)
    assert bar("1d").samples == 3


@pytest.mark.usefixtures("hours_are_over")
def test_price_without_a_time_counts_while_its_market_is_open() -> None:
    store(None, received_at=NOON)
    store(None, received_at=NOON + timedelta(hours=8), price="20")
    make()
    assert (bar().close, bar().samples) == (10, 1)
    store(None, symbol="NO.SUCHPLACE", received_at=NOON + timedelta(hours=8))
    make()


@pytest.mark.usefixtures("hours_are_over")
def test_price_of_a_day_is_of_its_day_alone() -> None:
    store(datetime(2026, 11, 23, 21, tzinfo=UTC), precision="day")
    make()
    assert [each.interval for each in PriceBar.objects.all()] == ["1d"]


@pytest.mark.usefixtures("hours_are_over")
def test_currencies_and_providers_are_never_mixed() -> None:
    for currency, provider in [("GBp", "yfinance"), ("GBP", "yfinance"), (None, "finnhub")]:
        store(currency=currency, provider=provider)
    make()
    assert PriceBar.objects.filter(interval="1m").count() == 3


def test_hours_and_days_are_made_once_they_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    make_bars()
    hour = database_now().replace(minute=0, second=0, microsecond=0)
    BarProgress.objects.update(hours_until=hour)
    store(hour + 5 * SECOND)
    make_bars()
    assert not PriceBar.objects.exclude(interval="1m").exists()
    later = database_now() + timedelta(hours=1, minutes=3)
    monkeypatch.setattr(making, "database_now", lambda: later)
    make()
    assert BarProgress.objects.get().hours_until == hour + timedelta(hours=1)


def test_hours_without_a_price_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    make_bars()
    hour = database_now().replace(minute=0, second=0, microsecond=0)
    store(hour + 5 * SECOND)
    years = hour + timedelta(days=3_000)
    monkeypatch.setattr(making, "database_now", lambda: years + timedelta(minutes=3))
    began = time.monotonic()
    make()
    # Hour by hour it would be 72,000 of them.
    assert time.monotonic() - began < 20
    assert BarProgress.objects.get().hours_until == years


def test_hours_of_a_clock_that_was_ahead_are_made_again() -> None:
    make_bars()
    BarProgress.objects.update(hours_until=database_now() + timedelta(days=300))
    make_bars()
    assert BarProgress.objects.get().hours_until <= database_now()


def test_work_that_takes_long_is_left_to_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "POINTS_AT_ONCE", 1)
    monkeypatch.setattr(making, "BUSY_FOR_S", 0.001)
    for number in range(3):
        store(NOON + 60 * number * SECOND)
    make_bars()
    assert 0 < PriceBar.objects.filter(interval="1m").count() < 3
    for _ in range(4):
        make_bars()
    make()


def test_points_of_before_the_first_run_are_read_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "POINTS_AT_ONCE", 3)
    for number in range(10):
        store(NOON + number * 40 * SECOND, price=f"{number + 1}")
    make()
    assert BarProgress.objects.get().backfill_from is None


def test_point_that_is_committed_after_younger_ones_were_read_is_not_left_out() -> None:
    make_bars()
    slow = connection.copy()
    try:
        slow.set_autocommit(False)
        with slow.cursor() as cursor:
            cursor.execute(
                "INSERT INTO price_points (id, symbol, provider, price, observed_at, precision, received_at,"
                " raw) SELECT %s, 'AAPL', 'finnhub', 7, %s, 'second', %s, uuidv7()",
                [first_id_at(NOON), NOON, NOON],
            )
        store(NOON + SECOND, price="8")
        make_bars()
        # Whether it was read already or waits for the older transaction, it is not lost.
        slow.commit()
    finally:
        slow.close()
    make()
    assert PriceBar.objects.filter(interval="1m").count() == 2


def test_one_process_makes_bars_at_a_time() -> None:
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(hashtext(%s))", [making._LOCK])
        store()
        assert make_bars() == 0
        assert not PriceBar.objects.exists()
        with other.cursor() as cursor:
            # A session that is closed has its lock a moment longer.
            cursor.execute("SELECT pg_advisory_unlock_all()")
    finally:
        other.close()
    make()


@hypothesis_settings(max_examples=examples(100))
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["AAPL", "SIM-A", "VOD.L", "EUR/USD"]),
            st.sampled_from(["finnhub", "yfinance", "alpha_vantage"]),
            st.sampled_from(["USD", None]),
            # Around midnight of a Friday in New York, and around an hour.
            st.sampled_from([0, 1, 30, 59, 60, 3599, 3600, 7 * 3600, 11 * 3600, 35 * 3600]),
            # In tens of minutes; by a clock that is behind, as well.
            st.sampled_from([-1, 0, 1, 2, 3]),
            st.sampled_from(["second", "unknown"]),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_bars_are_those_of_the_definition(
    points: list[tuple[str, str, str | None, int, int, str, bool]],
) -> None:
    PricePoint.objects.all().delete()
    PriceBar.objects.all().delete()
    make_bars()
    BarProgress.objects.update(hours_until=NOON + timedelta(days=30))
    for symbol, provider, currency, offset, late, precision, makes in points:
        # Who tells days tells nothing else.
        precision = "day" if provider == "alpha_vantage" else precision
        moment = datetime(2026, 11, 27, 17, tzinfo=UTC) + offset * SECOND
        store(
            None if precision == "unknown" else moment,
            symbol=symbol,
            provider=provider,
            currency=currency,
            price=f"{late + 2}.{offset % 7}",
            received_at=moment + timedelta(minutes=10 * late),
            precision=precision,
        )
        if makes:
            make_bars()
    make()
