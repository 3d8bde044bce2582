"""When exchanges trade, year by year, from the library exchange_calendars.

A calendar of the library may end: the holidays of some exchanges are announced a year ahead. Beyond its
end the exchange's usual week goes on, without holidays, and the schedule says so (`is_usual`).
"""

import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any

# Jakarta's later holidays are missing from the library: its calendar would call them trading days.
_COMPLETE_UNTIL = {"XIDX": date(2025, 12, 31)}
_MOST_KEPT = 256


@dataclass(frozen=True, slots=True)
class Schedule:
    """One exchange in one year and the December before it; times are in UTC and ascend.

    `opens` and `closes` are those of trading, which a lunch break interrupts. `is_usual`: holidays and short
    days of at least a part of the year are not known. `zone` is the exchange's own clock.
    """

    zone: tzinfo
    opens: Sequence[datetime]
    closes: Sequence[datetime]
    session_opens: Sequence[datetime]
    session_closes: Sequence[datetime]
    close_by_day: dict[date, datetime]
    is_usual: bool


_kept: dict[tuple[str, int], Schedule | None] = {}
# One thread makes a schedule, the others wait for it; and warnings are put back in order.
_making = threading.Lock()


def schedule_of(code: str, year: int) -> Schedule | None:
    """Return an exchange's schedule of a year; None where the library has nothing that tells it.

    By years, so that the answer follows from the moment alone, however long a process lives: no exchange
    has a session on January 1st that begins before the year does in UTC.
    """
    key = (code, year)
    # Not under the lock: one that is known never waits for one that is made.
    if key in _kept:
        return _kept[key]
    with _making:
        if key not in _kept:
            made = _make(code, year)
            if len(_kept) >= _MOST_KEPT:
                _kept.pop(next(iter(_kept)))
            _kept[key] = made
        return _kept.get(key)


def last_known_day(code: str) -> date | None:
    """Return the last day of which the exchange's holidays are known; None where there is no such end."""
    # Here and not above: pandas takes a second and 70 MB to import, and not all processes need it.
    from exchange_calendars.calendar_utils import global_calendar_dispatcher

    known = _COMPLETE_UNTIL.get(code)
    factory = global_calendar_dispatcher._calendar_factories.get(code)
    end = factory.bound_max() if factory else None
    return min(filter(None, [known, end and end.date()]), default=None)


def _make(code: str, year: int) -> Schedule | None:
    import exchange_calendars

    last_day = last_known_day(code) or date.max
    end = min(date(year, 12, 31), last_day)
    start = min(date(year - 1, 12, 1), end - timedelta(days=31))
    with warnings.catch_warnings():
        # What pandas tells the library's authors must not fail whoever asks for a price.
        warnings.simplefilter("ignore")
        try:
            calendar = exchange_calendars.get_calendar(code, start=str(start), end=str(end))
        except ValueError:  # years before its beginning
            return None
        return _to_schedule(calendar, usual_from=end + timedelta(days=1), usual_until=date(year, 12, 31))


def _to_schedule(calendar: Any, *, usual_from: date, usual_until: date) -> Schedule:
    table = calendar.schedule
    days = list(table.index.date)
    opens, closes = _to_times(table["open"]), _to_times(table["close"])
    # Empty for nearly all exchanges and years.
    lunches, lunch_ends = _to_times(table["break_start"].dropna()), _to_times(table["break_end"].dropna())
    for day in _usual_days(calendar, usual_from, usual_until):
        days.append(day)
        opens.append(_usual_time(calendar, calendar.open_times, day, offset=calendar.open_offset))
        closes.append(_usual_time(calendar, calendar.close_times, day, offset=calendar.close_offset))
        if calendar.break_start_times:
            lunches.append(_usual_time(calendar, calendar.break_start_times, day))
            lunch_ends.append(_usual_time(calendar, calendar.break_end_times, day))
    return Schedule(
        zone=calendar.tz,
        opens=sorted(opens + lunch_ends),
        closes=sorted(closes + lunches),
        session_opens=opens,
        session_closes=closes,
        close_by_day=dict(zip(days, closes, strict=True)),
        is_usual=usual_from <= usual_until,
    )


def _usual_days(calendar: Any, first: date, last: date) -> Iterator[date]:
    for number in range((last - first).days + 1):
        day = first + timedelta(days=number)
        if calendar.weekmask[day.weekday()] == "1":
            yield day


def _usual_time(calendar: Any, times: Any, day: date, *, offset: int = 0) -> datetime:
    # Each entry of the library is the time from a day on; the last one holds.
    local: time = times[-1][1]
    at = datetime.combine(day + timedelta(days=offset), local, tzinfo=calendar.tz)
    return at.astimezone(UTC)


def _to_times(column: Any) -> list[datetime]:
    return [datetime.fromtimestamp(timestamp.timestamp(), tz=UTC) for timestamp in column]
