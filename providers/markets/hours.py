"""When a listing trades: what the market of its calendar (providers/markets/calendars.py) does at a moment.

Exchanges come from providers/markets/exchange_schedules.py: holidays, early closes, lunch breaks, changes of
the clock, auctions before and after the hours left out. Currency pairs have the week of the currency market,
Sunday 17:00 to Friday 17:00 in New York, without holidays: each bank has its own. Coins, and the simulated
symbols, trade always.
"""

from bisect import bisect_right
from calendar import FRIDAY, MONDAY, SUNDAY, THURSDAY, TUESDAY, WEDNESDAY
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from providers.markets.calendars import ALWAYS_OPEN, CURRENCY_WEEK, calendar_of
from providers.markets.exchange_schedules import last_known_day, schedule_of

NEW_YORK = ZoneInfo("America/New_York")
# When what trades always began to: before any price.
_EVER = datetime(1970, 1, 1, tzinfo=UTC)


class MarketState(StrEnum):
    """Whether a market trades at a moment; a lunch break is closed."""

    OPEN = "open"
    CLOSED = "closed"
    UNKNOWN = "unknown"


# When it opens, when it closes.
Session = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class MarketHours:
    """A market at one moment: when, at or before it, trading and its sessions last began and ended.

    All in UTC. A session is a whole trading day; a lunch break ends trading, but no session. Where
    trading goes on without an end, a session is a day in UTC (coins) or from 17:00 to 17:00 in New
    York (currencies). `is_usual`: these are the week's usual hours, and holidays are not known.
    """

    opened_at: datetime
    closed_at: datetime
    session_opened_at: datetime
    session_closed_at: datetime
    is_usual: bool = False

    @property
    def state(self) -> MarketState:
        """Return whether there is trading at the moment: open or closed."""
        return MarketState.OPEN if self.opened_at >= self.closed_at else MarketState.CLOSED

    @property
    def in_session(self) -> bool:
        """Return whether a session has begun and not ended; its lunch break lies inside."""
        return self.session_opened_at >= self.session_closed_at


def market_hours(symbol: str, *, provider: str, moment: datetime) -> MarketHours | None:
    """Return the hours of the listing's market at a moment, None where they are not known.

    The first call for an exchange and a year takes 0.1 to 0.3 s, the first of a process 1 s more.
    """
    calendar = calendar_of(symbol, provider=provider)
    if calendar is None:
        return None
    if calendar == ALWAYS_OPEN:
        midnight = datetime.combine(moment.astimezone(UTC).date(), time(), tzinfo=UTC)
        return MarketHours(_EVER, _EVER, midnight, midnight)
    if calendar == CURRENCY_WEEK:
        return _currency_hours(moment)
    return _exchange_hours(calendar, moment.astimezone(UTC))


def trading_sessions(calendar: str, *, start: datetime, end: datetime) -> list[Session] | None:
    """Return the sessions of a calendar that touch the time from `start` to `end`, in order; None: unknown.

    Currencies have one session a week, which nothing interrupts; what trades always is open all the time.
    The first call for an exchange and a year takes 0.1 to 0.3 s, the first of a process 1 s more.
    """
    if calendar == ALWAYS_OPEN:
        return [(start, end)]
    currency = calendar == CURRENCY_WEEK
    found = _currency_weeks(start, end) if currency else _exchange_sessions(calendar, start, end)
    return found and [(opens, closes) for opens, closes in found if closes > start and opens < end]


def day_close(symbol: str, *, provider: str, day: date, received_at: datetime) -> datetime:
    """Return the UTC time at which a trading day's price was final, never later than `received_at`.

    The session's close where the listing's calendar knows the day, else the end of that day in UTC.
    """
    calendar = calendar_of(symbol, provider=provider)
    schedule = None
    if calendar not in {None, ALWAYS_OPEN, CURRENCY_WEEK}:
        schedule = schedule_of(str(calendar), day.year)
    close = schedule.close_by_day.get(day) if schedule else None
    return min(close or datetime.combine(day, time(23, 59, 59), tzinfo=UTC), received_at)


def _currency_hours(moment: datetime) -> MarketHours:
    return MarketHours(
        opened_at=_lastfive_pm(moment, {SUNDAY}),
        closed_at=_lastfive_pm(moment, {FRIDAY}),
        session_opened_at=_lastfive_pm(moment, {SUNDAY, MONDAY, TUESDAY, WEDNESDAY, THURSDAY}),
        session_closed_at=_lastfive_pm(moment, {MONDAY, TUESDAY, WEDNESDAY, THURSDAY, FRIDAY}),
    )


def _currency_weeks(start: datetime, end: datetime) -> list[Session]:
    first = start.astimezone(NEW_YORK).date() - timedelta(days=8)
    days = (first + timedelta(days=number) for number in range((end - start).days + 11))
    return [(five_pm(day), five_pm(day + timedelta(days=5))) for day in days if day.weekday() == SUNDAY]


def five_pm(day: date) -> datetime:
    """Return when the currency market's day of this date ends: 17:00 in New York."""
    return datetime.combine(day, time(17), tzinfo=NEW_YORK).astimezone(UTC)


def _lastfive_pm(moment: datetime, weekdays: set[int]) -> datetime:
    today = moment.astimezone(NEW_YORK).date()
    days = (today - timedelta(days=back) for back in range(8))
    evenings = (five_pm(day) for day in days if day.weekday() in weekdays)
    return next(evening for evening in evenings if evening <= moment)


def _exchange_hours(code: str, moment: datetime) -> MarketHours | None:
    schedule = schedule_of(code, moment.year)
    if schedule is None:
        return None
    return MarketHours(
        opened_at=_last(schedule.opens, moment),
        closed_at=_last(schedule.closes, moment),
        session_opened_at=_last(schedule.session_opens, moment),
        session_closed_at=_last(schedule.session_closes, moment),
        is_usual=schedule.is_usual and moment.date() > (last_known_day(code) or date.max),
    )


def _exchange_sessions(code: str, start: datetime, end: datetime) -> list[Session] | None:
    found: dict[datetime, datetime] = {}
    for year in range(start.astimezone(UTC).year, end.astimezone(UTC).year + 1):
        schedule = schedule_of(code, year)
        if schedule is None:
            return None
        found |= zip(schedule.session_opens, schedule.session_closes, strict=True)
    return sorted(found.items())


def _last(times: Sequence[datetime], moment: datetime) -> datetime:
    return times[bisect_right(times, moment) - 1]
