"""The newest stored price of a symbol.

Of each provider the last few points are looked at, found by an index however many there are, or in Redis
(prices/fetching/last_points.py). What was received in a time that is still to come (a clock was ahead, and is
set right) is left out until that time.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog

from prices.database.uuid7 import IS_OF_TIME_UNTIL_NOW, first_id_received
from prices.fetching.last_points import LOOKED_AT, begin_entries, read_entries
from prices.models import PricePoint
from prices.models.price_point import newest_first
from prices.symbols import is_simulated
from providers.keys import SIMULATED
from providers.markets.freshness import Freshness, FreshnessState, freshness_of
from providers.rate_limits.redis_scripts import SharedStateError
from providers.registry import PROVIDER_NAMES

log = structlog.get_logger(__name__)

# What was received within a day is compared: that bounds the partitions that are read.
COMPARED_WITHIN = timedelta(days=1)
# How old a price may be by its time of receipt to stand in for one that cannot be fetched: it bounds the
# partitions that are read. One that is still fresh by its own time after longer there is none.
STANDS_IN_WITHIN = timedelta(days=7)

_LAST_OF_EACH = f"""
SELECT last.* FROM unnest(%(symbols)s::text[], %(providers)s::text[]) AS asked (symbol, name)
CROSS JOIN LATERAL (
    SELECT * FROM price_points
    WHERE symbol = asked.symbol AND provider = asked.name AND id >= %(oldest)s AND received_at > %(after)s
      AND {IS_OF_TIME_UNTIL_NOW}
    ORDER BY id DESC LIMIT %(limit)s
) AS last
"""  # noqa: S608 - no outside text


def last_points(symbols: Sequence[str], *, now: datetime) -> dict[str, Sequence[PricePoint]]:
    """Return the last points of each symbol that were received within a day, of each provider, newest first.

    From Redis, where they lie there; else from the table.
    """
    try:
        found: dict[str, Sequence[PricePoint]] = dict(read_entries(symbols, now=now))
    except SharedStateError as error:
        log.debug("last_points.not_read", reason=str(error))
        return _of_each(symbols, _read_day(symbols, now=now))
    missing = [symbol for symbol in symbols if symbol not in found]
    if missing:
        begun = begin_entries(missing)
        points = _read_day(missing, now=now)
        begun.complete(points, now=now)
        found |= _of_each(missing, points)
    return found


def last_points_of_week(symbols: Sequence[str], *, now: datetime) -> dict[str, Sequence[PricePoint]]:
    """Return the last points of each symbol of STANDS_IN_WITHIN, of each provider, newest first.

    In one query, and not from Redis: that keeps what callers ask for, one by one.
    """
    return _of_each(symbols, _read_all(symbols, received_after=now - STANDS_IN_WITHIN))


def stored_points(symbol: str, provider: str | None, *, received_after: datetime) -> list[PricePoint]:
    """Return the last points that were received after a time, of the named provider or of each."""
    providers = _providers_of(symbol) if provider is None else [provider]
    return _read([(symbol, name) for name in providers], received_after=received_after)


def stored_prices(
    symbols: Sequence[str], provider: str, *, received_after: datetime
) -> dict[str, PricePoint]:
    """Return the provider's newest points by `observed_at` of those received after a time, by symbol."""
    if not symbols:
        return {}
    points = _read([(symbol, provider) for symbol in symbols], received_after=received_after)
    return {point.symbol: point for point in reversed(newest_first(points))}


def stand_in(symbol: str, provider: str | None, *, now: datetime) -> PricePoint | None:
    """Return the newest stored point that is fresh or delayed by its own time, for a fetch that failed."""
    points = stored_points(symbol, provider, received_after=now - STANDS_IN_WITHIN)
    return next((point for point in newest_first(points) if _may_stand_in(point, now)), None)


def point_freshness(point: PricePoint, *, now: datetime) -> Freshness:
    """Judge a stored point by its own time."""
    return freshness_of(
        symbol=point.symbol,
        provider=point.provider,
        observed_at=point.observed_at,
        precision=point.precision,
        now=now,
    )


def _may_stand_in(point: PricePoint, now: datetime) -> bool:
    return point_freshness(point, now=now).state in {FreshnessState.FRESH, FreshnessState.DELAYED}


def _read_day(symbols: Sequence[str], *, now: datetime) -> list[PricePoint]:
    return _read_all(symbols, received_after=now - COMPARED_WITHIN)


def _read_all(symbols: Sequence[str], *, received_after: datetime) -> list[PricePoint]:
    pairs = [(symbol, name) for symbol in symbols for name in _providers_of(symbol)]
    return _read(pairs, received_after=received_after)


def _read(pairs: Sequence[tuple[str, str]], *, received_after: datetime) -> list[PricePoint]:
    symbols, providers = zip(*pairs, strict=True)
    return list(
        PricePoint.objects.raw(
            _LAST_OF_EACH,
            {
                "symbols": list(symbols),
                "providers": list(providers),
                "oldest": first_id_received(received_after),
                "after": received_after,
                "limit": LOOKED_AT,
            },
        )
    )


def _providers_of(symbol: str) -> list[str]:
    return [SIMULATED] if is_simulated(symbol) else [name for name in PROVIDER_NAMES if name != SIMULATED]


def _of_each(symbols: Sequence[str], points: Sequence[PricePoint]) -> dict[str, Sequence[PricePoint]]:
    found: dict[str, list[PricePoint]] = {symbol: [] for symbol in symbols}
    for point in newest_first(points):
        found[point.symbol].append(point)
    return dict(found)
