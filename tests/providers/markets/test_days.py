"""Which day a moment belongs to, for a listing, and when that day is over."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from providers.markets.days import day_over, days_between
from tests.examples import examples

SYMBOLS = ["AAPL", "7203.T", "RELIANCE.NS", "EURUSD=X", "BTC-USD", "SIM-A", "NO.SUCHPLACE"]


def day_of(symbol: str, moment: str) -> date:
    """Return the day of a moment."""
    at = datetime.fromisoformat(moment).replace(tzinfo=UTC)
    (_, day), *_ = days_between(symbol, provider="yfinance", start=at, end=at + timedelta(seconds=1))
    return day


@pytest.mark.parametrize(
    ("symbol", "moment", "day"),
    [
        # New York: its own midnight, in winter 05:00 UTC, in summer 04:00.
        ("AAPL", "2026-11-27T15:00", "2026-11-27"),
        ("AAPL", "2026-11-27T04:59", "2026-11-25"),
        ("AAPL", "2026-11-24T04:59", "2026-11-23"),
        ("AAPL", "2026-11-24T05:00", "2026-11-24"),
        ("AAPL", "2026-07-01T03:59", "2026-06-30"),
        ("AAPL", "2026-07-01T04:00", "2026-07-01"),
        # A weekend, and Thanksgiving.
        ("AAPL", "2026-11-28T12:00", "2026-11-27"),
        ("AAPL", "2026-11-30T04:59", "2026-11-27"),
        ("AAPL", "2026-11-30T05:00", "2026-11-30"),
        ("AAPL", "2026-11-26T15:00", "2026-11-25"),
        # Around the new year, and the weeks that follow it.
        ("AAPL", "2027-01-01T15:00", "2026-12-31"),
        ("AAPL", "2027-01-04T15:00", "2027-01-04"),
        # Tokyo and Mumbai begin before UTC does, Mumbai within an hour.
        ("7203.T", "2026-11-26T15:00", "2026-11-27"),
        ("7203.T", "2026-11-26T14:59", "2026-11-26"),
        ("RELIANCE.NS", "2026-11-26T18:29", "2026-11-26"),
        ("RELIANCE.NS", "2026-11-26T18:30", "2026-11-27"),
        # Currencies: 17:00 in New York, and the weekend is Friday's.
        ("EURUSD=X", "2026-11-26T21:59", "2026-11-26"),
        ("EURUSD=X", "2026-11-26T22:00", "2026-11-27"),
        ("EURUSD=X", "2026-11-28T12:00", "2026-11-27"),
        ("EURUSD=X", "2026-11-29T22:00", "2026-11-30"),
        # What trades always, and what is not known: days of UTC.
        ("BTC-USD", "2026-11-28T23:59", "2026-11-28"),
        ("SIM-A", "2026-11-29T00:00", "2026-11-29"),
        ("NO.SUCHPLACE", "2026-11-28T12:00", "2026-11-28"),
    ],
)
def test_day_is_that_of_the_session(symbol: str, moment: str, day: str) -> None:
    assert day_of(symbol, moment) == date.fromisoformat(day)


@pytest.mark.parametrize(
    ("symbol", "day", "over"),
    [
        ("AAPL", "2026-11-27", "2026-11-28T05:00"),
        ("AAPL", "2026-07-01", "2026-07-02T04:00"),
        ("7203.T", "2026-11-27", "2026-11-27T15:00"),
        ("EURUSD=X", "2026-11-27", "2026-11-27T22:00"),
        ("BTC-USD", "2026-11-27", "2026-11-28T00:00"),
        ("NO.SUCHPLACE", "2026-11-27", "2026-11-28T00:00"),
    ],
)
def test_day_is_over_at_midnight_on_its_clock(symbol: str, day: str, over: str) -> None:
    found = day_over(symbol, provider="yfinance", day=date.fromisoformat(day))
    assert found == datetime.fromisoformat(over).replace(tzinfo=UTC)


@hypothesis_settings(max_examples=examples(100))
@given(
    st.sampled_from(SYMBOLS),
    st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 31)),
    st.timedeltas(timedelta(seconds=1), timedelta(days=30)),
)
def test_days_cover_the_time_without_a_hole(symbol: str, begin: datetime, span: timedelta) -> None:
    start = begin.replace(tzinfo=UTC)
    begins = days_between(symbol, provider="yfinance", start=start, end=start + span)
    assert begins == sorted(set(begins))
    assert begins[0][0] <= start
    assert begins[-1][0] >= start + span
    assert all(moment < start + span for moment, _ in begins[:-1])
    assert [day for _, day in begins] == sorted({day for _, day in begins})
