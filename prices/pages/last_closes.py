"""How far a price is from its last session's close, by the bars of days; unknown rather than wrong.

The close is that of the session before the one that the price is of. It is taken from a bar of the same
provider and currency that has a sample of the session's last minutes: what was last seen at noon is no close.
Where trading never ends there is no close.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any

from django.db import connection

from prices.models import BarInterval, PricePoint
from providers.markets.calendars import ALWAYS_OPEN, calendar_of
from providers.markets.days import days_between
from providers.markets.freshness import BEFORE_CLOSE
from providers.markets.hours import day_close

_MOMENT = timedelta(microseconds=1)
_DAYS_KEPT = 20_000
_CLOSES = """
SELECT wanted.symbol, bar.close
FROM unnest(%(symbols)s::text[], %(days)s::timestamptz[], %(providers)s::text[], %(currencies)s::text[],
            %(since)s::timestamptz[]) AS wanted (symbol, day, provider, currency, since)
JOIN price_bars AS bar
    ON bar.symbol = wanted.symbol AND bar.interval = %(interval)s AND bar.start = wanted.day
    AND bar.provider = wanted.provider AND bar.currency = wanted.currency
WHERE bar.last_observed_at >= wanted.since
"""


@dataclass(frozen=True, slots=True)
class Change:
    """The difference of a price to a close, and in percent of that."""

    amount: Decimal
    percent: Decimal


def changes_since_close(points: Iterable[PricePoint], *, now: datetime) -> dict[str, Change]:
    """Return by symbol how far each point is from the close of the session before its own.

    Symbols are missing whose close is not known. One query.
    """
    by_symbol = {point.symbol: point for point in points}
    days = {symbol: _session_before(point) for symbol, point in by_symbol.items()}
    wanted = [(by_symbol[symbol], day) for symbol, day in days.items() if day is not None]
    if not wanted:
        return {}
    arguments: dict[str, Any] = {
        "symbols": [point.symbol for point, _day in wanted],
        "days": [datetime.combine(day, time(), tzinfo=UTC) for _point, day in wanted],
        "providers": [point.provider for point, _day in wanted],
        "currencies": [point.currency or "" for point, _day in wanted],
        "since": [_closes_from(point, day, now=now) for point, day in wanted],
        "interval": BarInterval.DAY.value,
    }
    with connection.cursor() as cursor:
        cursor.execute(_CLOSES, arguments)
        closes: dict[str, Decimal] = dict(cursor.fetchall())
    return {symbol: _change(by_symbol[symbol].price, close) for symbol, close in closes.items()}


def _session_before(point: PricePoint) -> date | None:
    """Return the date of the session before the one that the point is of; None where there are none."""
    if point.known_time is None or calendar_of(point.symbol, provider=point.provider) in {None, ALWAYS_OPEN}:
        return None
    # Days begin at some midnight: those of an hour are found once.
    hour = point.known_time.replace(minute=0, second=0, microsecond=0)
    return _day_before(point.symbol, point.provider, hour)


@lru_cache(maxsize=_DAYS_KEPT)
def _day_before(symbol: str, provider: str, moment: datetime) -> date:
    begin, _day = days_between(symbol, provider=provider, start=moment, end=moment + _MOMENT)[0]
    _begin, before = days_between(symbol, provider=provider, start=begin - _MOMENT, end=begin)[0]
    return before


def _closes_from(point: PricePoint, day: date, *, now: datetime) -> datetime:
    return day_close(point.symbol, provider=point.provider, day=day, received_at=now) - BEFORE_CLOSE


def _change(price: Decimal, close: Decimal) -> Change:
    amount = price - close
    return Change(amount, amount / close * 100)
