"""What bars are, told once more and in another way: from all points, in Python."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any, NamedTuple
from uuid import UUID

from prices.database.uuid7 import first_id_at, time_of_id
from prices.models import PriceBar, PricePoint
from providers.markets.days import days_between
from providers.markets.hours import MarketState, market_hours

# A Monday with trading.
NOON = datetime(2026, 11, 23, 17, tzinfo=UTC)
SECOND = timedelta(seconds=1)
AGREES_WITHIN = timedelta(minutes=2)
_VERSION_7 = 7 << 76 | 2 << 62
_numbers = count(1)
Key = tuple[str, str, datetime, str, str]


class Values(NamedTuple):
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    samples: int
    first: datetime
    last: datetime


def store(
    observed_at: datetime | None = NOON,
    *,
    price: str = "10",
    symbol: str = "AAPL",
    provider: str = "finnhub",
    received_at: datetime | None = None,
    made_at: datetime | None = None,
    **values: Any,
) -> PricePoint:
    """Store a point that came a second after its time; its id is made at its receipt, or at `made_at`."""
    received = received_at or (observed_at or NOON) + SECOND
    # In the order of their storing, as PostgreSQL makes them.
    point_id = UUID(int=first_id_at(made_at or received).int | _VERSION_7 | next(_numbers))
    return PricePoint.objects.create(
        **{
            "id": point_id,
            "symbol": symbol,
            "provider": provider,
            "price": Decimal(price),
            "currency": "USD",
            "observed_at": observed_at,
            "precision": "unknown" if observed_at is None else "second",
            "received_at": received,
            "raw": point_id,
        }
        | values
    )


def bars_of(points: Iterable[PricePoint]) -> dict[Key, Values]:
    """Return the bars by symbol, interval, start, provider and currency."""
    samples: dict[Key, dict[datetime, PricePoint]] = defaultdict(dict)
    for point in sorted(points, key=lambda point: point.id):
        moment = _sampled_at(point)
        for interval, start in _bars_at(point, moment) if moment else ():
            of_bar = samples[point.symbol, interval, start, point.provider, point.currency or ""]
            of_bar[moment] = point  # type: ignore[index]  # not None here
    return {key: _values(of_bar) for key, of_bar in samples.items()}


def stored_bars() -> dict[Key, Values]:
    """Return the bars that are stored."""
    return {
        (bar.symbol, bar.interval, bar.start, bar.provider, bar.currency): Values(
            bar.open,
            bar.high,
            bar.low,
            bar.close,
            bar.samples,
            bar.first_observed_at,
            bar.last_observed_at,
        )
        for bar in PriceBar.objects.all()
    }


def _sampled_at(point: PricePoint) -> datetime | None:
    made_at = time_of_id(point.id)
    if point.observed_at is not None:
        return point.observed_at if point.observed_at <= made_at + AGREES_WITHIN else None
    if abs(point.received_at - made_at) > AGREES_WITHIN:
        return None
    minute = point.received_at.replace(second=0, microsecond=0)
    hours = market_hours(point.symbol, provider=point.provider, moment=minute)
    return None if hours is not None and hours.state is MarketState.CLOSED else point.received_at


def _bars_at(point: PricePoint, moment: datetime) -> Iterable[tuple[str, datetime]]:
    if point.precision != "day":
        yield "1m", moment.replace(second=0, microsecond=0)
        yield "1h", moment.replace(minute=0, second=0, microsecond=0)
    begins = days_between(point.symbol, provider=point.provider, start=moment, end=moment + timedelta(1))
    _, day = next(each for each in reversed(begins) if each[0] <= moment)
    yield "1d", datetime(day.year, day.month, day.day, tzinfo=UTC)


def _values(samples: dict[datetime, PricePoint]) -> Values:
    in_order = [samples[moment].price for moment in sorted(samples)]
    return Values(
        in_order[0],
        max(in_order),
        min(in_order),
        in_order[-1],
        len(in_order),
        min(samples),
        max(samples),
    )
