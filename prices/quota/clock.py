"""Clocks by which requests are spread: one unit of a clock is one window's worth of requests.

A plain clock runs all the time. A market clock runs while any market of a set is open, and for an hour
after it closes, so that the closing price is asked for too. It runs as fast as it may: in no window, wherever
that begins, it passes more than one unit. For one exchange that is one unit a trading day.

All is exact: whole microseconds and fractions, so that nothing drifts however late the year.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from typing import Protocol

from prices.database.uuid7 import EPOCH
from providers.markets.polling_hours import polling_hours

DAY_US = 86_400_000_000

_MICROSECOND = timedelta(microseconds=1)
_WEEK_US = 7 * DAY_US
# Weeks begin on Saturday at 12:00 UTC, when no exchange of this world is open.
_WEEK_BEGINS_US = 2 * DAY_US + DAY_US // 2
_USUAL_TRADING_DAYS = 5

# From one reading of a clock to a later one.
Passage = tuple[Fraction, Fraction]


class Clock(Protocol):
    """Tells how a clock runs."""

    @property
    def running_us(self) -> int:
        """For how long it runs to pass one unit, in microseconds."""

    @property
    def follows_markets(self) -> bool:
        """Whether it stands still at times."""

    def passages(self, after: datetime, until: datetime) -> Iterator[Passage]:
        """Return what passes after one moment and until another, piece by piece; nothing while it stands."""


@dataclass(frozen=True, slots=True)
class PlainClock:
    """Runs all the time; a unit takes a window."""

    window_us: int

    @property
    def running_us(self) -> int:
        """The whole window."""
        return self.window_us

    @property
    def follows_markets(self) -> bool:
        """It never stands still."""
        return False

    def passages(self, after: datetime, until: datetime) -> Iterator[Passage]:
        """Yield the one piece."""
        yield Fraction(to_us(after), self.window_us), Fraction(to_us(until), self.window_us)


@dataclass(frozen=True, slots=True)
class MarketClock:
    """Runs while one of the calendars' markets is open; `running_us` is as of the week it was made for."""

    calendars: frozenset[str]
    window_us: int
    running_us: int

    @property
    def follows_markets(self) -> bool:
        """It stands still while all are closed."""
        return True

    def passages(self, after: datetime, until: datetime) -> Iterator[Passage]:
        """Yield a piece for each stretch of open hours."""
        start, end = to_us(after), to_us(until)
        for week in range(_week_of(start), _week_of(end) + 1):
            for stretch in _stretches(self.calendars, week, self.window_us):
                if stretch.opens_us < end and stretch.closes_us > start:
                    yield (
                        stretch.reading(max(start, stretch.opens_us)),
                        stretch.reading(min(end, stretch.closes_us)),
                    )


def market_clock(calendars: frozenset[str], *, window_us: int, now: datetime) -> MarketClock | None:
    """Return the clock of these calendars; None where their hours are not known, or are none for weeks."""
    spans = _spans_around(calendars, _week_of(to_us(now)), window_us)
    if not spans:
        return None
    return MarketClock(calendars, window_us, max(_units(spans, window_us)))


def to_us(moment: datetime) -> int:
    """Return a moment in whole microseconds since 1970."""
    return (moment - EPOCH) // _MICROSECOND


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Open hours without a break, within a week; at its start the clock shows `base`."""

    opens_us: int
    closes_us: int
    base: Fraction
    unit_us: int

    def reading(self, at_us: int) -> Fraction:
        return self.base + Fraction(at_us - self.opens_us, self.unit_us)


Span = tuple[int, int]


def _week_of(at_us: int) -> int:
    return (at_us - _WEEK_BEGINS_US) // _WEEK_US


@lru_cache(maxsize=512)
def _stretches(calendars: frozenset[str], week: int, window_us: int) -> tuple[_Stretch, ...]:
    spans = _spans_around(calendars, week, window_us) or ()
    begins = _beginning_of(week)
    # Each week goes on from where weeks of five trading days would have brought the clock: its reading
    # follows from the moment alone, without a look at all the years before.
    base = Fraction(_USUAL_TRADING_DAYS * DAY_US, window_us) * week
    found = []
    for span, unit_us in zip(spans, _units(spans, window_us), strict=True):
        opens, closes = max(span[0], begins), min(span[1], begins + _WEEK_US)
        if opens < closes:
            found.append(_Stretch(opens, closes, base, unit_us))
            base += Fraction(closes - opens, unit_us)
    return tuple(found)


def _beginning_of(week: int) -> int:
    return _WEEK_BEGINS_US + week * _WEEK_US


@lru_cache(maxsize=512)
def _spans_around(calendars: frozenset[str], week: int, window_us: int) -> tuple[Span, ...] | None:
    """Return the open hours of a week, of those beside it, and as far as windows reach; None: unknown."""
    around = max(_WEEK_US, window_us)
    spans = _open_spans(calendars, _beginning_of(week) - around, _beginning_of(week + 1) + around)
    return None if spans is None else tuple(spans)


def _open_spans(calendars: frozenset[str], start_us: int, end_us: int) -> list[Span] | None:
    start, end = (EPOCH + at_us * _MICROSECOND for at_us in (start_us, end_us))
    found = polling_hours(calendars, start=start, end=end)
    return None if found is None else [(to_us(opens), to_us(closes)) for opens, closes in found]


@lru_cache(maxsize=512)
def _units(spans: tuple[Span, ...], window_us: int) -> tuple[int, ...]:
    """Return, by span, the most open hours that any window has which touches the span (in microseconds).

    A clock that takes so long for a unit passes at most one in any window: hours before a short day are
    as slow as the short day's, or both together would be too much. The fullest windows begin where a span
    does or end where one does.
    """
    edges = [opens for opens, _ in spans] + [closes - window_us for _, closes in spans]
    windows = [(edge, _overlap(spans, edge, edge + window_us)) for edge in edges]
    return tuple(
        max(open_us for edge, open_us in windows if edge < closes and edge + window_us > opens)
        for opens, closes in spans
    )


def _overlap(spans: Sequence[Span], start: int, end: int) -> int:
    return sum(max(0, min(end, closes) - max(start, opens)) for opens, closes in spans)
