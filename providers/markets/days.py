"""Which day a moment belongs to, for a listing: the day of its exchange's session.

A day begins at its midnight on the exchange's own clock and lasts until the next day that has a session
begins: what comes on a weekend or a holiday belongs to the session before. A day of the currency market
begins at 17:00 in New York, and Friday's lasts until Sunday at 17:00. Where the calendar is not known, and
for what trades always, days are those of UTC.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta

from providers.markets.calendars import ALWAYS_OPEN, CURRENCY_WEEK, calendar_of
from providers.markets.exchange_schedules import Schedule, schedule_of
from providers.markets.hours import five_pm

# No exchange rests for longer, holidays and all.
_LONGEST_REST = timedelta(days=20)
_DAY = timedelta(days=1)

# When a day begins, and which it is.
DayBegin = tuple[datetime, date]


def days_between(symbol: str, *, provider: str, start: datetime, end: datetime) -> list[DayBegin]:
    """Return the days of the listing that touch the time from `start` to `end`, and the one after them.

    Each lasts until the next one begins.
    """
    calendar = calendar_of(symbol, provider=provider)
    found = sorted(_begins(calendar, start=start, end=end))
    before = [each for each in found if each[0] <= start][-1:]
    within = [each for each in found if start < each[0] < end]
    after = [each for each in found if each[0] >= end and each[0] > start][:1]
    return before + within + after


def day_over(symbol: str, *, provider: str, day: date) -> datetime:
    """Return when the day of this date is over: at the next midnight on the exchange's clock.

    What belongs to it after that, on a weekend say, was mostly told before.
    """
    calendar = calendar_of(symbol, provider=provider)
    if calendar == CURRENCY_WEEK:
        return five_pm(day)
    return _midnight(calendar, day + _DAY)


def _begins(calendar: str | None, *, start: datetime, end: datetime) -> Iterator[DayBegin]:
    first, last = (start - _LONGEST_REST).date(), (end + _LONGEST_REST).date()
    days = (first + number * _DAY for number in range((last - first).days + 1))
    if calendar == CURRENCY_WEEK:
        yield from ((five_pm(day - _DAY), day) for day in days if day.weekday() < 5)
    else:
        yield from ((_midnight(calendar, day), day) for day in days if _has_session(calendar, day))


def _has_session(calendar: str | None, day: date) -> bool:
    schedule = _schedule(calendar, day)
    return schedule is None or day in schedule.close_by_day


def _midnight(calendar: str | None, day: date) -> datetime:
    schedule = _schedule(calendar, day)
    zone = UTC if schedule is None else schedule.zone
    return datetime.combine(day, time(), tzinfo=zone).astimezone(UTC)


def _schedule(calendar: str | None, day: date) -> Schedule | None:
    return None if calendar is None or calendar == ALWAYS_OPEN else schedule_of(calendar, day.year)
