"""Which slots are polled in market hours, against what looking at each session gives."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prices.database.uuid7 import EPOCH, epoch_ms
from prices.ledger.market_hours import (
    JobHours,
    calendars_of,
    hours_at,
    hours_of,
    is_polled_at,
    next_polled_slot,
    symbols_at,
)
from prices.ledger.ranges import SlotRange
from prices.models import PollJob
from providers.markets.calendars import CURRENCY_WEEK
from providers.markets.hours import trading_sessions

NEW_YORK = ZoneInfo("America/New_York")
HOUR, DAY, MS = timedelta(hours=1), timedelta(days=1), timedelta(milliseconds=1)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
# A year with its changes of the clock, and one that is far.
YEARS = [datetime(2026, 1, 1, tzinfo=UTC), datetime(2101, 1, 1, tzinfo=UTC)]
CALENDARS = [
    frozenset({"XNYS"}),
    frozenset({"XTKS"}),
    frozenset({"XLON", "XNYS"}),
    frozenset({"XSAU", "XHKG"}),
    frozenset({CURRENCY_WEEK}),
    # Its calendar has ended: the usual week goes on.
    frozenset({"XIDX"}),
]
MOMENTS = st.builds(lambda year, ms: year + ms * MS, st.sampled_from(YEARS), st.integers(0, 365 * 86_400_000))
INTERVALS = st.one_of(st.integers(1, 86_400), st.sampled_from([1, 60, 3600, 86_400]))


def job_of(*symbols: str, interval: int = 60, since: datetime | None = LONG_AGO, **fields: object) -> PollJob:
    names = {"market_hours": True, "provider": "yfinance"} | fields
    return PollJob(id=uuid4(), symbols=list(symbols), interval=interval, market_hours_from=since, **names)


def in_new_york(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=NEW_YORK)


def is_in_hours(calendars: frozenset[str], due_at: datetime, interval: int) -> bool:
    """Return whether a market traded, or had closed less than an hour ago, since the slot before."""
    before = due_at - timedelta(seconds=interval)
    sessions = [
        session
        for calendar in calendars
        for session in trading_sessions(calendar, start=before - 10 * DAY, end=due_at + DAY) or []
    ]
    return any(opens <= due_at and before < closes + HOUR for opens, closes in sessions)


@given(st.sampled_from(CALENDARS), MOMENTS, INTERVALS)
def test_slot_is_polled_if_a_market_was_worth_asking_since_the_one_before(
    calendars: frozenset[str], due_at: datetime, interval: int
) -> None:
    assert JobHours(calendars, LONG_AGO).have_slot(due_at, interval) == is_in_hours(
        calendars, due_at, interval
    )


@given(st.sampled_from(CALENDARS), MOMENTS, INTERVALS)
def test_next_slot_is_the_first_one_that_is_polled(
    calendars: frozenset[str], due_at: datetime, interval: int
) -> None:
    hours, due, step = hours_at(calendars, epoch_ms(due_at)), epoch_ms(due_at), interval * 1000
    assert hours is not None
    found = hours.next_slot(due, step)
    assert found > due
    assert (found - due) % step == 0
    assert is_in_hours(calendars, EPOCH + found * MS, interval)
    # Those before it lie in one rest of the markets: the ends tell of all.
    for left_out in {due + step, found - step} - {due, found}:
        assert not is_in_hours(calendars, EPOCH + left_out * MS, interval)


@given(st.sampled_from(CALENDARS), MOMENTS, INTERVALS, st.integers(1, 200), st.integers(0, 200))
def test_range_is_split_as_its_slots_are(
    calendars: frozenset[str], first: datetime, interval: int, count: int, since: int
) -> None:
    step = timedelta(seconds=interval)
    hours = JobHours(calendars, first + (since - 1) * step)
    slots = SlotRange(first, first + (count - 1) * step, step)
    told = [
        (part.first + number * step, polled)
        for part, polled in hours.split(slots)
        for number in range(part.count)
    ]
    assert told == [
        (due_at, hours.have_slot(due_at, interval)) for due_at in (first + n * step for n in range(count))
    ]


@given(st.sampled_from(CALENDARS), MOMENTS, INTERVALS)
def test_each_session_has_a_slot_once_its_close_is_an_hour_old(
    calendars: frozenset[str], moment: datetime, interval: int
) -> None:
    step = timedelta(seconds=interval)
    for calendar in calendars:
        for _, closes in trading_sessions(calendar, start=moment, end=moment + 7 * DAY) or []:
            # The first one on the grid through `moment`.
            last = moment - (moment - closes - HOUR) // step * step
            assert closes + HOUR <= last < closes + HOUR + step
            assert JobHours(calendars, LONG_AGO).have_slot(last, interval)


@pytest.mark.parametrize(
    ("interval", "polled", "left_out"),
    [
        # The close of 16:00 is asked for until 17:00, and once after that.
        (60, ["09:30", "12:00", "16:00", "16:59", "17:00"], ["08:00", "09:29", "17:01", "20:00"]),
        (3600, ["10:00", "16:00", "17:00", "17:59"], ["08:00", "09:29", "18:00", "20:00"]),
    ],
)
def test_slots_of_a_day(interval: int, polled: list[str], left_out: list[str]) -> None:
    job = job_of("AAPL", interval=interval)
    told = {text: is_polled_at(job, in_new_york(f"2026-11-24 {text}")) for text in polled + left_out}
    assert told == dict.fromkeys(polled, True) | dict.fromkeys(left_out, False)


@pytest.mark.parametrize(
    ("text", "polled"),
    [
        ("2026-11-26 12:00", False),  # a holiday
        ("2026-11-27 12:00", True),  # trading ends at 13:00
        ("2026-11-27 14:00", True),
        ("2026-11-27 14:01", False),
        ("2026-11-28 12:00", False),  # Saturday
        ("2026-03-06 09:29", False),  # before the change of the clock, and after it
        ("2026-03-06 09:30", True),
        ("2026-03-09 09:29", False),
        ("2026-03-09 09:30", True),
        ("2026-11-02 09:29", False),
        ("2026-11-02 09:30", True),
        ("2027-12-31 12:00", True),
        ("2101-12-30 12:00", True),
        ("2101-12-31 12:00", False),
    ],
)
def test_slots_of_days_that_are_unlike_others(text: str, polled: bool) -> None:
    assert is_polled_at(job_of("AAPL"), in_new_york(text)) is polled


def test_slot_a_day_is_polled_after_each_session_and_on_no_other_day() -> None:
    job = job_of("AAPL", interval=86_400)
    for hour in (3, 12, 20):
        first = in_new_york(f"2026-11-23 {hour:02}:00")
        days = [first + number * DAY for number in range(7)]
        # Thursday is a holiday: Wednesday's close is asked for in its hours or on the day after.
        polled = [due_at.day for due_at in days if is_polled_at(job, due_at)]
        assert (
            polled
            == {
                3: [24, 25, 26, 28],
                12: [23, 24, 25, 26, 27, 28],
                20: [23, 24, 25, 27],
            }[hour]
        )


def test_symbols_are_polled_each_in_its_own_hours() -> None:
    job = job_of("7203.T", "AAPL", "EURUSD=X", "BTC-USD", "^GSPC")
    always = ["BTC-USD", "^GSPC"]
    assert symbols_at(job, in_new_york("2026-11-24 12:00")) == ["AAPL", "EURUSD=X", *always]
    assert symbols_at(job, in_new_york("2026-11-23 21:00")) == ["7203.T", "EURUSD=X", *always]
    assert symbols_at(job, in_new_york("2026-11-28 12:00")) == always


@given(MOMENTS, INTERVALS)
def test_job_is_polled_while_any_of_its_symbols_is(due_at: datetime, interval: int) -> None:
    job = job_of("AAPL", "7203.T", "VOD.L", interval=interval)
    assert is_polled_at(job, due_at) == bool(symbols_at(job, due_at))


@pytest.mark.parametrize(
    "job",
    [
        job_of("AAPL", "^GSPC"),
        job_of("BTC-USD"),
        job_of("SIM-A", provider="simulated"),
        job_of("AAPL", market_hours=False),
        job_of("AAPL", since=None),
    ],
    ids=["unknown", "always", "simulated", "without", "first price"],
)
def test_job_without_hours_is_polled_at_each_slot(job: PollJob) -> None:
    night = in_new_york("2026-11-28 03:00")
    assert hours_of(job) is None
    assert is_polled_at(job, night)
    assert next_polled_slot(job, night) == night + timedelta(seconds=60)


def test_slots_until_the_first_price_are_polled() -> None:
    first_price = in_new_york("2026-11-28 03:00")
    job = job_of("AAPL", "7203.T", since=first_price)
    assert symbols_at(job, first_price) == ["AAPL", "7203.T"]
    assert is_polled_at(job, first_price)
    assert not is_polled_at(job, first_price + MS)
    assert next_polled_slot(job, first_price - HOUR) == first_price - HOUR + timedelta(seconds=60)
    # Tokyo opens on Monday at 09:00.
    assert next_polled_slot(job, first_price) == datetime(2026, 11, 30, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("symbol", "calendars"),
    [
        ("AAPL", {"XNYS"}),
        # One provider's spelling, which no other knows.
        ("VOD.L", {"XLON"}),
        ("VOD.LON", {"XLON"}),
        ("EUR/USD", {CURRENCY_WEEK}),
        ("BTC/USD", None),
        ("XAU/USD", None),
        ("NOBODY:KNOWS", None),
    ],
)
def test_hours_of_a_job_without_provider_are_those_of_who_knows_the_symbol(
    symbol: str, calendars: set[str] | None
) -> None:
    assert calendars_of((symbol,), provider=None) == calendars


def slots_of(job: PollJob, start: datetime, days: int) -> Iterator[datetime]:
    due_at = start
    while (due_at := next_polled_slot(job, due_at)) < start + days * DAY:
        yield due_at


@pytest.mark.parametrize("year", YEARS)
def test_walk_from_slot_to_slot_meets_every_polled_one(year: datetime) -> None:
    job = job_of("AAPL", interval=3600)
    start = year + 300 * DAY
    all_slots = (start + number * HOUR for number in range(1, 21 * 24))
    assert list(slots_of(job, start, 21)) == [due_at for due_at in all_slots if is_polled_at(job, due_at)]
