"""How far a price can be trusted, at real moments: weekends, holidays, lunch breaks, changes of the clock."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from providers.markets.freshness import AFTER_CLOSE, Freshness, FreshnessState, age_seconds, freshness_of
from providers.markets.hours import MarketState, market_hours
from tests.examples import examples

NEW_YORK = ZoneInfo("America/New_York")
TOKYO = ZoneInfo("Asia/Tokyo")
RANK = {"fresh": 0, "delayed": 1, "unknown": 2, "stale": 3}
# One symbol of each kind of market: with and without a lunch break, always open, by the week, unknown.
SYMBOLS = ["AAPL", "OCDO.L", "7203.T", "BTC-USD", "EURUSD=X", "^GSPC"]


def judge(
    symbol: str, observed_at: datetime | None, now: datetime, *, precision: str = "second"
) -> Freshness:
    return freshness_of(
        symbol=symbol, provider="yfinance", observed_at=observed_at, precision=precision, now=now
    )


def new_york(day: int, hour: int, minute: int = 0, second: int = 0, *, month: int = 11) -> datetime:
    return datetime(2026, month, day, hour, minute, second, tzinfo=NEW_YORK)


def tokyo(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 11, day, hour, minute, tzinfo=TOKYO)


def utc(day: int, hour: int, minute: int = 0, second: int = 0) -> datetime:
    return datetime(2026, 11, day, hour, minute, second, tzinfo=UTC)


FRIDAY_CLOSE = new_york(13, 16)

# November 13 is a Friday, 20 the next; Thanksgiving is the 26th, the 27th ends at 13:00.
BY_THE_SECOND = [
    ("AAPL", new_york(16, 12), new_york(16, 12, 1), "fresh"),
    ("AAPL", new_york(16, 12), new_york(16, 12, 1, 1), "delayed"),
    ("AAPL", new_york(16, 12), new_york(16, 12, 20), "delayed"),
    ("AAPL", new_york(16, 12), new_york(16, 12, 20, 1), "stale"),
    ("AAPL", new_york(16, 12, 1), new_york(16, 12), "fresh"),
    ("AAPL", new_york(16, 12, 1, 1), new_york(16, 12), "unknown"),
    # The Friday close.
    ("AAPL", FRIDAY_CLOSE, new_york(13, 16, 5), "fresh"),
    ("AAPL", FRIDAY_CLOSE, new_york(15, 12), "fresh"),
    ("AAPL", FRIDAY_CLOSE, new_york(16, 9, 29), "fresh"),
    ("AAPL", FRIDAY_CLOSE, new_york(16, 9, 30), "delayed"),
    ("AAPL", FRIDAY_CLOSE, new_york(16, 9, 50), "delayed"),
    ("AAPL", FRIDAY_CLOSE, new_york(16, 9, 50, 1), "stale"),
    ("AAPL", FRIDAY_CLOSE, new_york(16, 16), "stale"),
    ("AAPL", FRIDAY_CLOSE, new_york(17, 12), "stale"),
    # A holiday on Monday (Labor Day, September 7) keeps it fresh until Tuesday's open.
    ("AAPL", new_york(4, 16, month=9), new_york(7, 12, month=9), "fresh"),
    ("AAPL", new_york(4, 16, month=9), new_york(8, 9, 29, month=9), "fresh"),
    ("AAPL", new_york(4, 16, month=9), new_york(8, 12, month=9), "stale"),
    # A quiet listing, and trades after hours and before them.
    ("AAPL", new_york(13, 15, 50), new_york(14, 12), "fresh"),
    ("AAPL", new_york(13, 15, 49), new_york(14, 12), "delayed"),
    ("AAPL", new_york(13, 9, 30), new_york(14, 12), "delayed"),
    ("AAPL", new_york(13, 9, 29), new_york(14, 12), "stale"),
    # An auction's price comes minutes after the close; later ones show that there is trading still.
    ("AAPL", new_york(13, 16, 15), new_york(14, 12), "fresh"),
    ("AAPL", new_york(13, 16, 15, 1), new_york(14, 12), "stale"),
    ("AAPL", new_york(13, 18), new_york(13, 18, 1), "fresh"),
    ("AAPL", new_york(13, 18), new_york(13, 18, 20), "delayed"),
    ("AAPL", new_york(13, 18), new_york(13, 18, 21), "stale"),
    ("AAPL", new_york(16, 8), new_york(16, 9, 20), "stale"),
    # Sundays on which India traded: the budget of February 1, and Muhurat on November 8.
    ("RELIANCE.NS", utc(8, 12, 30), utc(8, 12, 31), "fresh"),
    ("RELIANCE.NS", utc(8, 12, 30), utc(8, 16), "stale"),
    ("RELIANCE.NS", datetime(2026, 2, 1, 5, tzinfo=UTC), datetime(2026, 2, 1, 8, tzinfo=UTC), "stale"),
    ("AAPL", new_york(16, 9, 15), new_york(16, 9, 31), "delayed"),
    # Thanksgiving and the short day after it.
    ("AAPL", new_york(25, 16), new_york(26, 12), "fresh"),
    ("AAPL", new_york(27, 13), new_york(27, 15), "fresh"),
    ("AAPL", new_york(25, 16), new_york(27, 15), "stale"),
    # The clocks went back on Sunday, November 1: 20:00 UTC is Friday's close, 14:30 UTC Monday's open.
    ("AAPL", datetime(2026, 10, 30, 20, tzinfo=UTC), utc(1, 12), "fresh"),
    ("AAPL", datetime(2026, 10, 30, 20, tzinfo=UTC), utc(2, 14, 29), "fresh"),
    ("AAPL", datetime(2026, 10, 30, 20, tzinfo=UTC), utc(2, 14, 51), "stale"),
    # London rests when New York has half of its day before it.
    ("OCDO.L", utc(16, 16, 35, 20), utc(16, 17), "fresh"),
    ("AAPL", utc(16, 16, 35, 20), utc(16, 17), "stale"),
    ("OCDO.L", utc(25, 16, 30), utc(26, 12), "stale"),
    # The lunch break is no reason to call the morning's last price old, but the day before's is.
    ("7203.T", tokyo(20, 11, 30), tokyo(20, 12, 15), "fresh"),
    ("7203.T", tokyo(20, 10), tokyo(20, 12, 15), "delayed"),
    ("7203.T", tokyo(19, 15, 30), tokyo(20, 12, 15), "stale"),
    ("7203.T", tokyo(20, 11, 30), tokyo(20, 12, 45), "delayed"),
    ("7203.T", tokyo(20, 11, 30), tokyo(20, 12, 51), "stale"),
    ("7203.T", tokyo(20, 11, 30), tokyo(20, 16), "delayed"),
    # November 23 is a holiday in Japan.
    ("7203.T", tokyo(20, 15, 30), tokyo(23, 12), "fresh"),
    ("BTC-USD", utc(22, 11, 59), utc(22, 12), "fresh"),
    ("BTC-USD", utc(22, 11, 50), utc(22, 12), "delayed"),
    ("BTC-USD", utc(21, 12), utc(22, 12), "stale"),
    ("SIM-A", utc(22, 12), utc(22, 12, 0, 2), "fresh"),
    ("EURUSD=X", new_york(20, 16, 59), new_york(20, 17, 1), "fresh"),
    ("EURUSD=X", new_york(20, 16, 59), new_york(22, 12), "fresh"),
    ("EURUSD=X", new_york(20, 16, 59), new_york(22, 17, 10), "delayed"),
    ("EURUSD=X", new_york(20, 16, 59), new_york(22, 18), "stale"),
    ("EURUSD=X", new_york(19, 16, 59), new_york(21, 12), "stale"),
    ("EURUSD=X", new_york(18, 17), new_york(18, 17, 30), "stale"),
    ("^GSPC", new_york(20, 12), new_york(20, 12, 1), "fresh"),
    ("^GSPC", new_york(20, 12), new_york(20, 12, 20), "delayed"),
    ("^GSPC", new_york(20, 12), new_york(20, 12, 21), "unknown"),
    ("^GSPC", new_york(6, 12), new_york(20, 12), "unknown"),
    ("^GSPC", new_york(6, 11, 59), new_york(20, 12), "stale"),
]

BY_THE_DAY = [
    ("AAPL", FRIDAY_CLOSE, new_york(13, 16, 1), "fresh"),
    ("AAPL", FRIDAY_CLOSE, new_york(15, 12), "fresh"),
    ("AAPL", FRIDAY_CLOSE, new_york(16, 9, 30), "delayed"),
    ("AAPL", FRIDAY_CLOSE, new_york(16, 15, 59), "delayed"),
    ("AAPL", FRIDAY_CLOSE, new_york(16, 16), "stale"),
    ("AAPL", FRIDAY_CLOSE, new_york(17, 12), "stale"),
    ("AAPL", new_york(4, 16, month=9), new_york(8, 12, month=9), "delayed"),
    ("AAPL", new_york(4, 16, month=9), new_york(9, 12, month=9), "stale"),
    # Today's price, asked for while the session went on: it is not its close, not even later.
    ("AAPL", new_york(16, 12), new_york(16, 12), "delayed"),
    ("AAPL", new_york(16, 12), new_york(16, 15), "delayed"),
    ("AAPL", new_york(16, 12), new_york(16, 17), "delayed"),
    ("AAPL", new_york(16, 12), new_york(17, 17), "stale"),
    # Also minutes before the close: it may be of any moment of the day.
    ("AAPL", new_york(16, 15, 55), new_york(16, 17), "delayed"),
    ("AAPL", new_york(16, 15, 55), new_york(17, 12), "stale"),
    # Over lunch the session goes on.
    ("7203.T", tokyo(19, 15, 30), tokyo(20, 12), "delayed"),
    ("7203.T", tokyo(19, 15, 30), tokyo(20, 15, 30), "stale"),
    ("BTC-USD", utc(21, 23, 59, 59), utc(22, 12), "delayed"),
    ("BTC-USD", utc(21, 23, 59, 59), utc(23, 0), "stale"),
    # A Sunday's session that the calendar does not know.
    ("RELIANCE.NS", utc(8, 12, 30), utc(8, 13), "delayed"),
    ("^GSPC", utc(20, 12), utc(20, 12), "unknown"),
    ("^GSPC", utc(1, 12), utc(20, 12), "stale"),
]


@pytest.mark.parametrize(("symbol", "observed_at", "now", "state"), BY_THE_SECOND)
def test_freshness_by_the_second(symbol: str, observed_at: datetime, now: datetime, state: str) -> None:
    assert judge(symbol, observed_at, now).state == state


@pytest.mark.parametrize(("symbol", "observed_at", "now", "state"), BY_THE_DAY)
def test_freshness_by_the_day(symbol: str, observed_at: datetime, now: datetime, state: str) -> None:
    assert judge(symbol, observed_at, now, precision="day").state == state


def test_freshness_without_a_time_is_unknown() -> None:
    assert judge("AAPL", None, new_york(16, 12), precision="unknown") == Freshness(
        FreshnessState.UNKNOWN,
        "The provider gives no time, so the age is not known.",
        MarketState.OPEN,
    )


def test_freshness_names_the_close_that_decided() -> None:
    freshness = judge("AAPL", FRIDAY_CLOSE, new_york(15, 12))
    assert freshness.rule == (
        "The market is closed and the price is from the close of 2026-11-13 21:00 UTC or later."
    )
    assert freshness.market_state == "closed"


def test_freshness_of_an_unknown_market_says_so() -> None:
    freshness = judge("^GSPC", FRIDAY_CLOSE, new_york(15, 12))
    assert freshness.market_state == "unknown"
    assert "hours are not known" in freshness.rule


def test_freshness_of_usual_hours_says_so() -> None:
    monday = datetime(2027, 1, 4, 6, tzinfo=UTC)
    found = judge("RELIANCE.NS", monday, monday)
    assert (found.state, found.market_state) == ("fresh", "open")
    assert found.rule.endswith("these are the usual hours, and holidays are not known.")


def test_age_of_a_time_in_the_future_is_zero() -> None:
    assert age_seconds(utc(16, 12, 0, 30), now=utc(16, 12)) == 0
    assert age_seconds(utc(16, 12), now=utc(16, 12, 0, 30)) == 30


@settings(max_examples=examples(300))
@given(
    symbol=st.sampled_from(SYMBOLS),
    precision=st.sampled_from(["second", "day"]),
    observed_at=st.datetimes(datetime(2026, 10, 20), datetime(2026, 11, 20), timezones=st.just(UTC)),
    waits=st.tuples(*[st.timedeltas(timedelta(0), timedelta(days=2)) for _ in range(2)]),
)
@example("AAPL", "second", FRIDAY_CLOSE, (timedelta(days=2), timedelta(days=0.8)))
def test_state_never_gets_fresher_while_the_market_stays_as_it_is(
    symbol: str, precision: str, observed_at: datetime, waits: tuple[timedelta, timedelta]
) -> None:
    earlier = observed_at + waits[0]
    later = earlier + waits[1]
    assume(phase(symbol, earlier) == phase(symbol, later))
    states = [judge(symbol, observed_at, now, precision=precision).state for now in (earlier, later)]
    assert RANK[states[0]] <= RANK[states[1]]


@settings(max_examples=examples(300))
@given(
    symbol=st.sampled_from(SYMBOLS),
    precision=st.sampled_from(["second", "day"]),
    now=st.datetimes(datetime(2026, 10, 25), datetime(2026, 11, 20), timezones=st.just(UTC)),
    ages=st.tuples(*[st.timedeltas(timedelta(0), timedelta(days=5)) for _ in range(2)]),
)
def test_an_older_price_is_never_fresher(
    symbol: str, precision: str, now: datetime, ages: tuple[timedelta, timedelta]
) -> None:
    hours = market_hours(symbol, provider="yfinance", moment=now)
    # A time long after the close shows trading that those before it do not show.
    assume(hours is None or hours.state == "open" or now - min(ages) - hours.closed_at <= AFTER_CLOSE)
    states = [judge(symbol, now - age, now, precision=precision).state for age in sorted(ages)]
    assert RANK[states[0]] <= RANK[states[1]]


@settings(max_examples=examples(60))
@given(
    symbol=st.text(max_size=33) | st.from_regex(r"\A[A-Z0-9.\-_&=^:/]{1,32}\Z") | st.sampled_from(SYMBOLS),
    provider=st.sampled_from(["alpha_vantage", "finnhub", "yfinance", "simulated", ""]),
    observed_at=st.none() | st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    precision=st.sampled_from(["second", "day", "unknown"]),
    now=st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
)
@example("RELIANCE.NS", "yfinance", None, "unknown", datetime(2100, 1, 1, tzinfo=UTC))
@example("7203.T", "yfinance", FRIDAY_CLOSE, "day", datetime(1970, 1, 1, tzinfo=UTC))
@example("EURUSD=X", "yfinance", FRIDAY_CLOSE, "second", datetime(1970, 1, 1, tzinfo=UTC))
@example("BTC-USD", "yfinance", FRIDAY_CLOSE, "second", datetime(1970, 1, 1, tzinfo=UTC))
def test_freshness_never_raises(
    symbol: str, provider: str, observed_at: datetime | None, precision: str, now: datetime
) -> None:
    freshness = freshness_of(
        symbol=symbol, provider=provider, observed_at=observed_at, precision=precision, now=now
    )
    assert freshness.state in FreshnessState
    assert freshness.rule.endswith(".")


def phase(symbol: str, now: datetime) -> tuple[datetime, datetime, datetime, datetime] | None:
    """Return what stays the same while the market neither opens nor closes; sessions without an end aside."""
    hours = market_hours(symbol, provider="yfinance", moment=now)
    if hours is None:
        return None
    return hours.opened_at, hours.closed_at, hours.session_opened_at, hours.session_closed_at
