from datetime import UTC, datetime, timedelta
from fractions import Fraction
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prices.quota.clock import Clock, PlainClock, market_clock
from providers.markets.calendars import CURRENCY_WEEK

NEW_YORK = ZoneInfo("America/New_York")
DAY_US = 86_400_000_000
CALENDARS = [
    frozenset({"XNYS"}),
    frozenset({"XTKS"}),
    frozenset({"XLON", "XNYS"}),
    frozenset({CURRENCY_WEEK}),
    frozenset({"XSAU", "XHKG"}),
]
YEAR = datetime(2026, 1, 1, tzinfo=UTC)
MOMENTS = st.integers(0, 365 * DAY_US).map(lambda us: YEAR + timedelta(microseconds=us))


def clock_of(calendars: frozenset[str], *, days: int = 1, now: datetime = YEAR) -> Clock:
    clock = market_clock(calendars, window_us=days * DAY_US, now=now)
    assert clock is not None
    return clock


def passed(clock: Clock, after: datetime, until: datetime) -> Fraction:
    return sum((end - start for start, end in clock.passages(after, until)), Fraction(0))


@settings(deadline=None)
@given(st.sampled_from(CALENDARS), st.sampled_from([1, 2, 31]), MOMENTS)
def test_market_clock_passes_at_most_one_in_any_window(
    calendars: frozenset[str], days: int, moment: datetime
) -> None:
    clock = clock_of(calendars, days=days)
    assert 0 <= passed(clock, moment, moment + timedelta(days=days)) <= 1


@settings(deadline=None)
@given(st.sampled_from(CALENDARS), MOMENTS, st.timedeltas(timedelta(0), timedelta(days=9)), st.floats(0, 1))
def test_market_clock_is_the_same_in_pieces(
    calendars: frozenset[str], start: datetime, span: timedelta, share: float
) -> None:
    clock = clock_of(calendars)
    middle, end = start + span * share, start + span
    whole = passed(clock, start, end)
    assert passed(clock, start, middle) + passed(clock, middle, end) == whole


@settings(deadline=None)
@given(st.sampled_from(CALENDARS), MOMENTS)
def test_market_clock_never_reads_less_within_a_week(calendars: frozenset[str], moment: datetime) -> None:
    passages = list(clock_of(calendars).passages(moment, moment + timedelta(days=1)))
    assert all(start < end for start, end in passages)


@pytest.mark.parametrize(
    ("opens", "closes"),
    [
        # A usual day; Thanksgiving's Friday, which ends at 13:00; in summer.
        (datetime(2026, 11, 23, 9, 30), datetime(2026, 11, 23, 17)),
        (datetime(2026, 11, 27, 9, 30), datetime(2026, 11, 27, 14)),
        (datetime(2026, 7, 1, 9, 30), datetime(2026, 7, 1, 17)),
    ],
)
def test_market_clock_passes_one_from_open_to_an_hour_after_close(opens: datetime, closes: datetime) -> None:
    start, end = opens.replace(tzinfo=NEW_YORK), closes.replace(tzinfo=NEW_YORK)
    clock = clock_of(CALENDARS[0])
    assert passed(clock, start, end) == 1
    assert passed(clock, start, start + (end - start) / 2) == Fraction(1, 2)
    assert passed(clock, end, end + timedelta(hours=15)) == 0


def test_market_clock_stands_on_weekends_and_holidays() -> None:
    clock = clock_of(CALENDARS[0])
    thursday, saturday = datetime(2026, 11, 26, tzinfo=NEW_YORK), datetime(2026, 11, 28, tzinfo=NEW_YORK)
    assert list(clock.passages(thursday, thursday + timedelta(days=1))) == []
    assert list(clock.passages(saturday, saturday + timedelta(days=2))) == []


def test_market_clock_is_slower_on_a_short_day_after_a_long_one() -> None:
    clock = clock_of(frozenset({"XLON"}))
    # London closes at 12:30 on December 24 and 31; the day before it was open until 16:30.
    before, day = datetime(2026, 12, 30, 8, tzinfo=UTC), datetime(2026, 12, 31, 8, tzinfo=UTC)
    assert passed(clock, before, before + timedelta(days=1)) == 1
    assert passed(clock, day, day + timedelta(days=1)) == Fraction(11, 19)


def test_market_clock_runs_for_the_hours_of_all_its_markets() -> None:
    clock = clock_of(frozenset({"XLON", "XNYS"}), now=datetime(2026, 11, 23, tzinfo=UTC))
    # 8:00 to 22:00 UTC.
    assert clock.running_us == 14 * 3600 * 1_000_000
    assert clock.follows_markets


def test_market_clock_of_currencies_takes_a_day_for_one() -> None:
    clock = clock_of(frozenset({CURRENCY_WEEK}))
    assert clock.running_us == DAY_US
    wednesday = datetime(2026, 11, 25, tzinfo=UTC)
    assert passed(clock, wednesday, wednesday + timedelta(hours=6)) == Fraction(1, 4)


def test_market_clock_stands_for_a_week_of_holidays() -> None:
    # Shanghai rests from October 1 to 7.
    wednesday = datetime(2026, 10, 7, tzinfo=UTC)
    clock = clock_of(frozenset({"XSHG"}), now=wednesday)
    assert clock.running_us == 6.5 * 3600 * 1_000_000
    assert passed(clock, wednesday - timedelta(days=6), wednesday + timedelta(days=1)) == 0


def test_market_clock_of_an_ended_calendar_goes_by_the_usual_week() -> None:
    monday = datetime(2026, 11, 23, tzinfo=UTC)
    clock = clock_of(frozenset({"XIDX"}), now=monday)
    assert passed(clock, monday, monday + timedelta(days=1)) == 1


def test_plain_clock_never_stands_and_does_not_drift() -> None:
    clock = PlainClock(60_000_000)
    start = datetime(2026, 11, 22, 3, 0, 0, 1, tzinfo=UTC)
    assert passed(clock, start, start + timedelta(seconds=60)) == 1
    assert passed(clock, start, start + timedelta(microseconds=1)) == Fraction(1, 60_000_000)
