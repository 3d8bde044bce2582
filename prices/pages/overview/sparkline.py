"""A symbol's last hour of trading as a line: the closes of its last bars of a minute."""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from django.db import connection

from prices.models import BarInterval, PricePoint

BARS = 60
# Of the picture, in its own units.
WIDTH, HEIGHT = 120, 28
_EDGE = 2

_CLOSES = """
SELECT wanted.symbol, last.closes
FROM unnest(%(symbols)s::text[], %(providers)s::text[], %(currencies)s::text[])
     AS wanted (symbol, provider, currency)
CROSS JOIN LATERAL (
    SELECT array_agg(close ORDER BY start) AS closes FROM (
        SELECT start, close FROM price_bars
        WHERE symbol = wanted.symbol AND interval = %(interval)s
          AND provider = wanted.provider AND currency = wanted.currency
        ORDER BY start DESC LIMIT %(bars)s
    ) AS bars
) AS last WHERE last.closes IS NOT NULL
"""


def sparklines(points: Iterable[PricePoint]) -> dict[str, str]:
    """Return by symbol the line of the point's provider and currency, as the points of a polyline.

    Symbols are missing that have fewer than two bars. One query.
    """
    wanted = list(points)
    arguments: dict[str, Any] = {
        "symbols": [point.symbol for point in wanted],
        "providers": [point.provider for point in wanted],
        "currencies": [point.currency or "" for point in wanted],
        "interval": BarInterval.MINUTE.value,
        "bars": BARS,
    }
    with connection.cursor() as cursor:
        cursor.execute(_CLOSES, arguments)
        found: dict[str, list[Decimal]] = dict(cursor.fetchall())
    return {symbol: polyline(closes) for symbol, closes in found.items() if len(closes) > 1}


def polyline(closes: Sequence[Decimal]) -> str:
    """Return two or more closes as x,y pairs within WIDTH and HEIGHT, the highest on top."""
    low, high = min(closes), max(closes)
    step = WIDTH / (len(closes) - 1)
    return " ".join(f"{number * step:.1f},{_y(close, low, high):.1f}" for number, close in enumerate(closes))


def _y(close: Decimal, low: Decimal, high: Decimal) -> float:
    # A price that does not move is a line in the middle.
    share = 0.5 if high == low else float((high - close) / (high - low))
    return _EDGE + share * (HEIGHT - 2 * _EDGE)
