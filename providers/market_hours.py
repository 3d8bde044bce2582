"""When a listing trades: what the market of its calendar (providers/calendars.py) does at a moment.

Exchanges come from exchange_calendars: holidays, early closes, lunch breaks, changes of the clock,
auctions before and after the hours left out. Currency pairs have the week of the currency market,
Sunday 17:00 to Friday 17:00 in New York, without holidays: each bank has its own. Coins, and the
simulated symbols, trade always.
"""

import warnings
from bisect import bisect_right
from calendar import FRIDAY, MONDAY, SUNDAY, THURSDAY, TUESDAY, WEDNESDAY
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from threading import Lock
from typing import Any
from zoneinfo import ZoneInfo

from providers.calendars import ALWAYS_OPEN, CURRENCY_WEEK, calendar_of

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
    York (currencies).
    """

    opened_at: datetime
    closed_at: datetime
    session_opened_at: datetime
    session_closed_at: datetime

    @property
    def state(self) -> MarketState:
        """Tell whether there is trading at the moment: open or closed."""
        return MarketState.OPEN if self.opened_at >= self.closed_at else MarketState.CLOSED

    @property
    def in_session(self) -> bool:
        """Tell whether a session has begun and not ended; its lunch break lies inside."""
        return self.session_opened_at >= self.session_closed_at


def market_hours(symbol: str, *, provider: str, moment: datetime) -> MarketHours | None:
    """Give the hours of the listing's market at a moment, None where they are not known.

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
    """Give the sessions of a calendar that touch the time from `start` to `end`, in order; None: unknown.

    Currencies have one session a week, which nothing interrupts; what trades always is open all the time.
    The first call for an exchange and a year takes 0.1 to 0.3 s, the first of a process 1 s more.
    """
    if calendar == ALWAYS_OPEN:
        return [(start, end)]
    currency = calendar == CURRENCY_WEEK
    found = _currency_weeks(start, end) if currency else _exchange_sessions(calendar, start, end)
    return found and [(opens, closes) for opens, closes in found if closes > start and opens < end]


def day_close(symbol: str, *, provider: str, day: date, received_at: datetime) -> datetime:
    """Give the UTC time at which a trading day's price was final, never later than `received_at`.

    The session's close where the listing's calendar knows the day, else the end of that day in UTC.
    """
    calendar = calendar_of(symbol, provider=provider)
    schedule = None
    if calendar not in {None, ALWAYS_OPEN, CURRENCY_WEEK}:
        schedule = _schedule(str(calendar), day.year)
    close = schedule.close_by_day.get(day) if schedule else None
    return min(close or datetime.combine(day, time(23, 59, 59), tzinfo=UTC), received_at)


def _currency_hours(moment: datetime) -> MarketHours:
    return MarketHours(
        opened_at=_last_five_pm(moment, {SUNDAY}),
        closed_at=_last_five_pm(moment, {FRIDAY}),
        session_opened_at=_last_five_pm(moment, {SUNDAY, MONDAY, TUESDAY, WEDNESDAY, THURSDAY}),
        session_closed_at=_last_five_pm(moment, {MONDAY, TUESDAY, WEDNESDAY, THURSDAY, FRIDAY}),
    )


def _currency_weeks(start: datetime, end: datetime) -> list[Session]:
    first = start.astimezone(NEW_YORK).date() - timedelta(days=8)
    days = (first + timedelta(days=number) for number in range((end - start).days + 11))
    return [(_five_pm(day), _five_pm(day + timedelta(days=5))) for day in days if day.weekday() == SUNDAY]


def _five_pm(day: date) -> datetime:
    return datetime.combine(day, time(17), tzinfo=NEW_YORK).astimezone(UTC)


def _last_five_pm(moment: datetime, weekdays: set[int]) -> datetime:
    today = moment.astimezone(NEW_YORK).date()
    days = (today - timedelta(days=back) for back in range(8))
    evenings = (_five_pm(day) for day in days if day.weekday() in weekdays)
    return next(evening for evening in evenings if evening <= moment)


@dataclass(frozen=True, slots=True)
class _Schedule:
    """One exchange in one year and the December before it; times ascend."""

    opens: Sequence[datetime]
    closes: Sequence[datetime]
    session_opens: Sequence[datetime]
    session_closes: Sequence[datetime]
    close_by_day: dict[date, datetime]


def _exchange_hours(code: str, moment: datetime) -> MarketHours | None:
    schedule = _schedule(code, moment.year)
    if schedule is None:
        return None
    return MarketHours(
        opened_at=_last(schedule.opens, moment),
        closed_at=_last(schedule.closes, moment),
        session_opened_at=_last(schedule.session_opens, moment),
        session_closed_at=_last(schedule.session_closes, moment),
    )


def _exchange_sessions(code: str, start: datetime, end: datetime) -> list[Session] | None:
    found: dict[datetime, datetime] = {}
    for year in range(start.astimezone(UTC).year, end.astimezone(UTC).year + 1):
        schedule = _schedule(code, year)
        if schedule is None:
            return None
        found |= zip(schedule.session_opens, schedule.session_closes, strict=True)
    return sorted(found.items())


def _last(times: Sequence[datetime], moment: datetime) -> datetime:
    return times[bisect_right(times, moment) - 1]


# Jakarta's later holidays are missing from the library: its calendar would call them trading days.
_LAST_YEAR = {"XIDX": 2025}

# One thread makes a calendar, the others wait for it; and warnings are put back in order.
_making = Lock()


def _schedule(code: str, year: int) -> _Schedule | None:
    with _making:
        return _make_schedule(code, year)


@lru_cache(maxsize=256)
def _make_schedule(code: str, year: int) -> _Schedule | None:
    # By years, so that the answer follows from the moment alone, however long a process lives. No
    # exchange has a session on January 1st that begins before the year does in UTC.
    if year > _LAST_YEAR.get(code, year):
        return None
    # Here and not above: pandas takes a second and 70 MB to import, and not all processes need it.
    import exchange_calendars  # type: ignore[import-untyped]  # it has no type hints

    with warnings.catch_warnings():
        # What pandas tells the library's authors must not fail whoever asks for a price.
        warnings.simplefilter("ignore")
        try:
            calendar = exchange_calendars.get_calendar(code, start=f"{year - 1}-12-01", end=f"{year}-12-31")
        except ValueError:  # years that the library has no holidays for
            return None
        return _to_schedule(calendar.schedule)


def _to_schedule(table: Any) -> _Schedule:
    opens, closes = _to_times(table["open"]), _to_times(table["close"])
    # Empty for nearly all exchanges and years.
    lunches, lunch_ends = _to_times(table["break_start"].dropna()), _to_times(table["break_end"].dropna())
    return _Schedule(
        opens=sorted(opens + lunch_ends),
        closes=sorted(closes + lunches),
        session_opens=opens,
        session_closes=closes,
        close_by_day=dict(zip(table.index.date, closes, strict=True)),
    )


def _to_times(column: Any) -> list[datetime]:
    return [datetime.fromtimestamp(timestamp.timestamp(), tz=UTC) for timestamp in column]
