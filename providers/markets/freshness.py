"""How far a stored price can be trusted as the present one, by the provider's time and the market's hours.

Pure: the same price at the same moment gets the same answer. The market's hours are those of
providers/markets/hours.py, an age is the moment minus `observed_at`, and up to 60 s into the future is an
age of 0 (clocks differ; the adapters refuse more). Without a time of the provider all is unknown.

A time by the second:

open    fresh up to 60 s (a shorter interval than most jobs have), delayed up to 20 min (exchanges sell
        feeds that are 15 min late, some 20; Yahoo and Alpha Vantage pass them on), then stale. In the
        first 20 min of trading the last close is delayed and not stale: a late feed has nothing newer.
closed  fresh from 10 min before the last close (a quiet listing's last trade comes before the close,
        an auction's up to 15 min after it), delayed if from earlier in that session, stale if the whole
        session has passed since. A lunch break counts as a close. A time over 15 min after the close shows
        that there is trading outside of the hours, before or after them or in a session that the calendar
        does not know: then the age decides, as while open.

A day without a time of day (`observed_at` is then the session's close, or when the answer came):

in a session     delayed if it is the last close or later: it is not the present price, yet the newest that
                 such a provider has. Stale if a session has ended since. Never fresh: the day does
                 not tell the second.
between sessions as by the second: the last close is fresh until the next session. But a time minutes
                 before it is no quiet listing's last trade: the answer came then, and its price may be
                 of any moment of the day. A day without a session by the calendar is delayed: when its
                 trading ended is not known.

So a Friday close is fresh on Sunday, delayed on Monday while the market is open (by the second: for 20 min),
and stale from Monday's close on.

Where the calendar has ended and an exchange's usual hours stand in for it, the rule says so.

Hours not known: with a time by the second fresh and delayed as in an open market, for so young a price is
either way; over 14 days stale, longer than holidays close any exchange; between the two unknown, for whether
there was trading since cannot be told, and a guess would be wrong on each weekend or on each Monday.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from providers.markets.hours import MarketHours, MarketState, market_hours

FRESH_UP_TO = timedelta(seconds=60)
DELAYED_UP_TO = timedelta(minutes=20)
BEFORE_CLOSE = timedelta(minutes=10)
AFTER_CLOSE = timedelta(minutes=15)
USUAL_HOURS = " Its calendar has ended: these are the usual hours, and holidays are not known."
# A day without a session of its own ends at 23:59:59.
BEFORE_DAYS_END = timedelta(seconds=1)
STALE_IN_ANY_MARKET = timedelta(days=14)
MAX_AHEAD = timedelta(seconds=60)


class FreshnessState(StrEnum):
    """How far the price can be trusted as the present one."""

    FRESH = "fresh"
    DELAYED = "delayed"
    STALE = "stale"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Freshness:
    """The judgement, the rule that decided in one sentence, and what the market does meanwhile."""

    state: FreshnessState
    rule: str
    market_state: MarketState


_Verdict = tuple[FreshnessState, str]


def freshness_of(
    *, symbol: str, provider: str, observed_at: datetime | None, precision: str, now: datetime
) -> Freshness:
    """Judge a price by the provider's time at the moment `now`; never raises.

    `precision` is that of `observed_at`: second, day or unknown.
    """
    hours = market_hours(symbol, provider=provider, moment=now)
    state, rule = _judge(hours, observed_at, by_day=precision == "day", now=now)
    if hours is None:
        return Freshness(state, rule, MarketState.UNKNOWN)
    return Freshness(state, rule + USUAL_HOURS if hours.is_usual else rule, hours.state)


def age_seconds(observed_at: datetime, *, now: datetime) -> float:
    """Return the age of a price in seconds; 0 where the provider's clock is ahead."""
    return max((now - observed_at).total_seconds(), 0.0)


def _judge(
    hours: MarketHours | None, observed_at: datetime | None, *, by_day: bool, now: datetime
) -> _Verdict:
    if observed_at is None:
        return FreshnessState.UNKNOWN, "The provider gives no time, so the age is not known."
    if observed_at - now > MAX_AHEAD:
        return FreshnessState.UNKNOWN, "The provider's time is more than 60 s in the future."
    age = timedelta(seconds=age_seconds(observed_at, now=now))
    if hours is None:
        return _without_hours(age, by_day=by_day)
    if by_day and hours.in_session:
        return _day_in_session(hours, observed_at)
    if not by_day and hours.state is MarketState.OPEN:
        return _while_open(hours, observed_at, age=age, now=now)
    if observed_at - hours.session_closed_at > AFTER_CLOSE and observed_at - hours.closed_at > AFTER_CLOSE:
        return _outside_hours(hours, age, by_day=by_day)
    return _while_closed(hours, observed_at, by_day=by_day)


def _outside_hours(hours: MarketHours, age: timedelta, *, by_day: bool) -> _Verdict:
    trading = f"There was trading over 15 min after {_at(hours.closed_at)}"
    if by_day:
        return FreshnessState.DELAYED, f"{trading}, and the price is a day's."
    if age <= FRESH_UP_TO:
        return FreshnessState.FRESH, f"{trading}, and the price is at most 60 s old."
    if age <= DELAYED_UP_TO:
        return FreshnessState.DELAYED, f"{trading}, and the price is at most 20 min old."
    return FreshnessState.STALE, f"{trading}, and the price is over 20 min old."


def _without_hours(age: timedelta, *, by_day: bool) -> _Verdict:
    if age > STALE_IN_ANY_MARKET:
        return FreshnessState.STALE, "The price is over 14 days old: no market rests that long."
    if age <= FRESH_UP_TO and not by_day:
        return FreshnessState.FRESH, "The price is at most 60 s old; the trading hours are not known."
    if age <= DELAYED_UP_TO and not by_day:
        return FreshnessState.DELAYED, "The price is at most 20 min old; the trading hours are not known."
    return (
        FreshnessState.UNKNOWN,
        "The trading hours are not known, so neither is whether there was trading since.",
    )


def _while_open(hours: MarketHours, observed_at: datetime, *, age: timedelta, now: datetime) -> _Verdict:
    if age <= FRESH_UP_TO:
        return FreshnessState.FRESH, "The market is open and the price is at most 60 s old."
    if age <= DELAYED_UP_TO:
        return FreshnessState.DELAYED, "The market is open and the price is at most 20 min old."
    if now - hours.opened_at <= DELAYED_UP_TO and observed_at >= hours.closed_at - BEFORE_CLOSE:
        return (
            FreshnessState.DELAYED,
            f"The market opened at most 20 min ago and the price is from about {_at(hours.closed_at)}.",
        )
    return FreshnessState.STALE, "The market is open and the price is over 20 min old."


def _day_in_session(hours: MarketHours, observed_at: datetime) -> _Verdict:
    last_close = hours.session_closed_at
    if observed_at >= last_close - BEFORE_DAYS_END:
        return (
            FreshnessState.DELAYED,
            f"The session is not over and the price is a day's, from {_at(last_close)} or later.",
        )
    return FreshnessState.STALE, f"The price is a day's, from before {_at(last_close)}."


def _while_closed(hours: MarketHours, observed_at: datetime, *, by_day: bool) -> _Verdict:
    last_close, before = (
        (hours.session_closed_at, BEFORE_DAYS_END) if by_day else (hours.closed_at, BEFORE_CLOSE)
    )
    if observed_at >= last_close - before:
        return FreshnessState.FRESH, f"The market is closed and the price is from {_at(last_close)} or later."
    if observed_at >= hours.session_opened_at:
        return (
            FreshnessState.DELAYED,
            f"The market is closed and the price is from the last session, but before {_at(last_close)}.",
        )
    return (
        FreshnessState.STALE,
        f"The market is closed and the price is from before the session that ended at {_at(last_close)}.",
    )


def _at(close: datetime) -> str:
    return f"the close of {close:%Y-%m-%d %H:%M} UTC"
