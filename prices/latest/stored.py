"""The newest stored price of a symbol.

Of each provider the last few points are looked at, found by an index however many there are. A few and not
one: a provider that answers from several machines goes back in time now and then. What was received in a
time that is still to come (a clock was ahead, and is set right) is left out until that time.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from prices.database.uuid7 import IS_OF_TIME_UNTIL_NOW, first_id_received
from prices.latest.freshness import Freshness, FreshnessState, freshness_of
from prices.models import PricePoint
from prices.models.price_point import Precision
from prices.symbols import is_simulated
from providers.keys import SIMULATED
from providers.registry import PROVIDER_NAMES

LOOKED_AT = 5
# How old a price may be by its time of receipt to stand in for one that cannot be fetched: it bounds the
# partitions that are read. One that is still fresh by its own time after longer there is none.
STANDS_IN_WITHIN = timedelta(days=7)

_NEVER = datetime.min.replace(tzinfo=UTC)
_LAST_OF_EACH = f"""
SELECT last.* FROM unnest(%(providers)s::text[]) AS asked (name) CROSS JOIN LATERAL (
    SELECT * FROM price_points
    WHERE symbol = %(symbol)s AND provider = asked.name AND id >= %(oldest)s AND received_at > %(after)s
      AND {IS_OF_TIME_UNTIL_NOW}
    ORDER BY id DESC LIMIT %(limit)s
) AS last
"""  # noqa: S608 - no outside text


def stored_points(symbol: str, provider: str | None, *, received_after: datetime) -> list[PricePoint]:
    """Return the last points that were received after a time, of the named provider or of each."""
    real = [name for name in PROVIDER_NAMES if is_simulated(symbol) == (name == SIMULATED)]
    return list(
        PricePoint.objects.raw(
            _LAST_OF_EACH,
            {
                "providers": real if provider is None else [provider],
                "symbol": symbol,
                "oldest": first_id_received(received_after),
                "after": received_after,
                "limit": LOOKED_AT,
            },
        )
    )


def stored_price(symbol: str, provider: str | None, *, received_after: datetime) -> PricePoint | None:
    """Return the stored point with the newest `observed_at` among those received after a time."""
    return next(iter(newest_first(stored_points(symbol, provider, received_after=received_after))), None)


def known_time(point: PricePoint) -> datetime | None:
    """Return when the price was true at the latest, None where that is not known.

    A price of a day that was not over when it came has the time of its receipt, for want of a better one: it
    may be of any moment of the day, and so has no age.
    """
    by_running_day = point.precision == Precision.DAY and point.observed_at == point.received_at
    return None if by_running_day else point.observed_at


def newest_first(points: Iterable[PricePoint]) -> list[PricePoint]:
    """Put points in order by the provider's time; those of which it is not known are last."""
    return sorted(points, key=lambda point: (known_time(point) or _NEVER, point.id), reverse=True)


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
