"""What markets do at real moments of 2026."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.markets.calendars import ALWAYS_OPEN, CURRENCY_WEEK
from providers.markets.hours import MarketState, day_close, market_hours, trading_sessions

LONG_AFTER = datetime(2026, 12, 1, tzinfo=UTC)
NEW_YORK = ZoneInfo("America/New_York")
LONDON = ZoneInfo("Europe/London")
TOKYO = ZoneInfo("Asia/Tokyo")


@pytest.mark.parametrize(
    ("symbol", "moment", "state"),
    [
        ("AAPL", datetime(2026, 11, 20, 9, 29, 59, tzinfo=NEW_YORK), "closed"),
        ("AAPL", datetime(2026, 11, 20, 9, 30, tzinfo=NEW_YORK), "open"),
        ("AAPL", datetime(2026, 11, 20, 15, 59, 59, tzinfo=NEW_YORK), "open"),
        ("AAPL", datetime(2026, 11, 20, 16, tzinfo=NEW_YORK), "closed"),
        ("AAPL", datetime(2026, 11, 21, 12, tzinfo=NEW_YORK), "closed"),
        # Thanksgiving, the short day after it, and Labor Day.
        ("AAPL", datetime(2026, 11, 26, 12, tzinfo=NEW_YORK), "closed"),
        ("AAPL", datetime(2026, 11, 27, 12, 59, tzinfo=NEW_YORK), "open"),
        ("AAPL", datetime(2026, 11, 27, 13, tzinfo=NEW_YORK), "closed"),
        ("AAPL", datetime(2026, 9, 7, 12, tzinfo=NEW_YORK), "closed"),
        # America changes its clocks on March 8 and November 1, Europe on March 29 and October 25.
        ("AAPL", datetime(2026, 3, 6, 14, 29, tzinfo=UTC), "closed"),
        ("AAPL", datetime(2026, 3, 9, 13, 30, tzinfo=UTC), "open"),
        ("AAPL", datetime(2026, 3, 9, 20, tzinfo=UTC), "closed"),
        ("AAPL", datetime(2026, 10, 30, 20, tzinfo=UTC), "closed"),
        ("AAPL", datetime(2026, 11, 2, 20, 30, tzinfo=UTC), "open"),
        ("OCDO.L", datetime(2026, 3, 27, 8, tzinfo=UTC), "open"),
        ("OCDO.L", datetime(2026, 3, 30, 7, tzinfo=UTC), "open"),
        ("OCDO.L", datetime(2026, 10, 26, 7, 30, tzinfo=UTC), "closed"),
        # London trades on Thanksgiving, New York on Boxing Day's substitute (December 28).
        ("OCDO.L", datetime(2026, 11, 26, 12, tzinfo=LONDON), "open"),
        ("OCDO.L", datetime(2026, 12, 28, 12, tzinfo=LONDON), "closed"),
        ("AAPL", datetime(2026, 12, 28, 12, tzinfo=NEW_YORK), "open"),
        ("OCDO.L", datetime(2026, 12, 24, 12, 30, tzinfo=LONDON), "closed"),
        ("7203.T", datetime(2026, 11, 20, 11, 29, tzinfo=TOKYO), "open"),
        ("7203.T", datetime(2026, 11, 20, 11, 30, tzinfo=TOKYO), "closed"),
        ("7203.T", datetime(2026, 11, 20, 12, 30, tzinfo=TOKYO), "open"),
        ("7203.T", datetime(2026, 11, 20, 15, 30, tzinfo=TOKYO), "closed"),
        # A year begins: the calendar of the new one knows what came before it.
        ("AAPL", datetime(2026, 1, 1, 0, 30, tzinfo=UTC), "closed"),
        ("AAPL", datetime(2026, 1, 2, 15, tzinfo=UTC), "open"),
        ("BTC-USD", datetime(2026, 11, 22, 12, tzinfo=UTC), "open"),
        ("EURUSD=X", datetime(2026, 11, 20, 16, 59, tzinfo=NEW_YORK), "open"),
        ("EURUSD=X", datetime(2026, 11, 20, 17, 1, tzinfo=NEW_YORK), "closed"),
        ("EURUSD=X", datetime(2026, 11, 22, 16, 59, tzinfo=NEW_YORK), "closed"),
        ("EURUSD=X", datetime(2026, 11, 22, 17, tzinfo=NEW_YORK), "open"),
        ("EURUSD=X", datetime(2026, 3, 8, 21, tzinfo=UTC), "open"),
        ("EURUSD=X", datetime(2026, 11, 1, 21, 30, tzinfo=UTC), "closed"),
        ("^GSPC", datetime(2026, 11, 20, 12, tzinfo=NEW_YORK), None),
        # Where the library's holidays end, nothing is known.
        # Their calendars have ended: the usual week goes on.
        ("WSKT.JK", datetime(2026, 11, 20, 4, tzinfo=UTC), "open"),
        ("M&M.NS", datetime(2030, 11, 20, 5, tzinfo=UTC), "open"),
        ("M&M.NS", datetime(2030, 11, 23, 5, tzinfo=UTC), "closed"),
    ],
)
def test_state_at_a_moment(symbol: str, moment: datetime, state: str | None) -> None:
    hours = market_hours(symbol, provider="yfinance", moment=moment)
    assert (None if hours is None else hours.state) == state


def test_hours_on_the_weekend_are_those_of_friday() -> None:
    hours = market_hours("AAPL", provider="yfinance", moment=datetime(2026, 11, 22, 12, tzinfo=UTC))
    assert hours is not None
    assert hours.opened_at == hours.session_opened_at == datetime(2026, 11, 20, 14, 30, tzinfo=UTC)
    assert hours.closed_at == hours.session_closed_at == datetime(2026, 11, 20, 21, tzinfo=UTC)
    assert hours.in_session is False


def test_hours_in_the_lunch_break_lie_inside_the_session() -> None:
    hours = market_hours("7203.T", provider="yfinance", moment=datetime(2026, 11, 20, 12, tzinfo=TOKYO))
    assert hours is not None
    assert hours.opened_at == hours.session_opened_at == datetime(2026, 11, 20, 9, tzinfo=TOKYO)
    assert hours.closed_at == datetime(2026, 11, 20, 11, 30, tzinfo=TOKYO)
    assert hours.session_closed_at == datetime(2026, 11, 19, 15, 30, tzinfo=TOKYO)
    assert (hours.state, hours.in_session) == (MarketState.CLOSED, True)


def test_hours_of_currencies_have_sessions_by_the_day() -> None:
    hours = market_hours("EURUSD=X", provider="yfinance", moment=datetime(2026, 11, 25, 12, tzinfo=UTC))
    assert hours is not None
    assert hours.opened_at == datetime(2026, 11, 22, 17, tzinfo=NEW_YORK)
    assert hours.session_opened_at == hours.session_closed_at == datetime(2026, 11, 24, 17, tzinfo=NEW_YORK)


@pytest.mark.parametrize(
    ("symbol", "day", "close"),
    [
        ("IBM", date(2026, 11, 20), datetime(2026, 11, 20, 21, tzinfo=UTC)),
        ("IBM", date(2026, 7, 1), datetime(2026, 7, 1, 20, tzinfo=UTC)),
        ("IBM", date(2025, 11, 28), datetime(2025, 11, 28, 18, tzinfo=UTC)),
        ("IBM", date(2018, 10, 5), datetime(2018, 10, 5, 20, tzinfo=UTC)),
        ("BRK.B", date(2026, 11, 20), datetime(2026, 11, 20, 21, tzinfo=UTC)),
        ("BRK-A", date(2026, 11, 20), datetime(2026, 11, 20, 21, tzinfo=UTC)),
        ("RELIANCE.BSE", date(2026, 11, 20), datetime(2026, 11, 20, 10, tzinfo=UTC)),
        ("SHOP.TRT", date(2026, 11, 20), datetime(2026, 11, 20, 21, tzinfo=UTC)),
        # No session of the calendar, no calendar, no close.
        ("IBM", date(2026, 11, 21), datetime(2026, 11, 21, 23, 59, 59, tzinfo=UTC)),
        ("VFINX", date(2026, 11, 20), datetime(2026, 11, 20, 23, 59, 59, tzinfo=UTC)),
        ("BTC/CNY", date(2026, 11, 20), datetime(2026, 11, 20, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_day_close_by_listing(symbol: str, day: date, close: datetime) -> None:
    assert day_close(symbol, provider="alpha_vantage", day=day, received_at=LONG_AFTER) == close


@pytest.mark.parametrize("symbol", ["IBM", "VFINX"])
def test_day_close_is_not_later_than_the_answer(symbol: str) -> None:
    received_at = datetime(2026, 11, 20, 15, 30, tzinfo=UTC)
    close = day_close(symbol, provider="alpha_vantage", day=date(2026, 11, 20), received_at=received_at)
    assert close == received_at


@settings(deadline=None)
@given(
    st.sampled_from(["AAPL", "7203.T", "EURUSD=X", "BTC-USD"]),
    st.timedeltas(timedelta(0), timedelta(days=365)),
)
def test_hours_are_never_after_the_moment(symbol: str, since: timedelta) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC) + since
    hours = market_hours(symbol, provider="yfinance", moment=moment)
    assert hours is not None
    assert max(hours.opened_at, hours.closed_at) <= moment
    assert hours.session_opened_at <= moment
    assert hours.session_closed_at <= moment
    assert hours.state == "closed" or hours.in_session


def test_sessions_of_a_week_with_a_holiday_and_a_short_day() -> None:
    start = datetime(2026, 11, 23, tzinfo=NEW_YORK)
    sessions = trading_sessions("XNYS", start=start, end=start + timedelta(days=7))
    assert sessions == [
        (
            datetime(2026, 11, day, 9, 30, tzinfo=NEW_YORK),
            datetime(2026, 11, day, 13 if day == 27 else 16, tzinfo=NEW_YORK),
        )
        for day in (23, 24, 25, 27)
    ]


def test_sessions_at_the_turn_of_the_year_are_there_once() -> None:
    start = datetime(2025, 12, 29, tzinfo=NEW_YORK)
    sessions = trading_sessions("XNYS", start=start, end=start + timedelta(days=7)) or []
    assert [opens.day for opens, _ in sessions] == [29, 30, 31, 2]


def test_sessions_that_only_touch_the_time_are_whole() -> None:
    noon = datetime(2026, 11, 24, 12, tzinfo=NEW_YORK)
    sessions = trading_sessions("XNYS", start=noon, end=noon + timedelta(minutes=1))
    opens = datetime(2026, 11, 24, 9, 30, tzinfo=NEW_YORK)
    assert sessions == [(opens, opens + timedelta(hours=6.5))]


@pytest.mark.parametrize("day", [datetime(2026, 3, 6, tzinfo=UTC), datetime(2026, 11, 4, tzinfo=UTC)])
def test_sessions_of_currencies_are_weeks_of_five_days(day: datetime) -> None:
    sessions = trading_sessions(CURRENCY_WEEK, start=day, end=day + timedelta(days=7)) or []
    assert len(sessions) == 2
    for opens, closes in sessions:
        assert (opens.astimezone(NEW_YORK).hour, opens.astimezone(NEW_YORK).weekday()) == (17, 6)
        assert closes - opens == timedelta(days=5)


def test_sessions_of_what_trades_always_are_the_whole_time() -> None:
    end = LONG_AFTER + timedelta(days=3)
    assert trading_sessions(ALWAYS_OPEN, start=LONG_AFTER, end=end) == [(LONG_AFTER, end)]


def test_sessions_where_holidays_are_not_known_are_the_usual_ones() -> None:
    found = trading_sessions("XIDX", start=LONG_AFTER, end=LONG_AFTER + timedelta(days=7))
    assert found is not None
    assert [opens.weekday() for opens, _ in found] == [1, 2, 3, 4, 0]


def test_usual_hours_begin_where_the_calendar_ends() -> None:
    last, next_year = datetime(2026, 12, 31, 5, tzinfo=UTC), datetime(2027, 1, 4, 5, tzinfo=UTC)
    hours = [market_hours("M&M.NS", provider="yfinance", moment=moment) for moment in (last, next_year)]
    assert [found.is_usual for found in hours if found] == [False, True]
