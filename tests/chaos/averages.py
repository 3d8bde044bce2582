"""The definition of the averages, in a few lines of its own: nothing here is the service's code."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Context, Decimal, Inexact
from functools import reduce
from typing import TypeAlias
from uuid import UUID

from tests.chaos.world import World

WINDOW = 5
# A digit that would be lost raises instead.
EXACT = Context(prec=60, traps=[Inexact])


@dataclass(frozen=True, slots=True)
class Row:
    """What a row of symbol_averages has to say."""

    symbol: str
    currency: str | None
    price: Decimal
    size: int
    average: Decimal | None
    provider: str
    observed_at: datetime | None


def wrong_averages(world: World) -> list[str]:
    """Return the stored rows that differ from the definition over all points."""
    points = world.database.rows(
        "SELECT id, symbol, currency, price, provider, observed_at FROM price_points"
    )
    expected = expected_rows(points)
    stored = world.database.rows(
        "SELECT event_id, symbol, currency, price, window_size, average, provider, observed_at"
        " FROM symbol_averages"
    )
    found = []
    for event_id, symbol, currency, price, size, average, provider, observed_at in stored:
        row = Row(symbol, currency, price, size, average, provider, observed_at)
        if event_id in expected and row != expected[event_id]:
            found.append(f"{event_id}: stored {row}, right is {expected[event_id]}")
    return found


Point: TypeAlias = tuple[UUID, str, str | None, Decimal, str, datetime | None]


def expected_rows(points: Iterable[Point]) -> dict[UUID, Row]:
    """Return the right row of each point: the mean of it and its four predecessors by id."""
    windows: dict[tuple[str, str | None], list[Decimal]] = defaultdict(list)
    rows = {}
    for point_id, symbol, currency, price, provider, observed_at in sorted(points):
        window = windows[symbol, currency]
        window.append(price)
        del window[:-WINDOW]
        rows[point_id] = Row(symbol, currency, price, len(window), _mean(window), provider, observed_at)
    return rows


def _mean(window: list[Decimal]) -> Decimal | None:
    if len(window) < WINDOW:
        return None
    return EXACT.divide(reduce(EXACT.add, window), Decimal(WINDOW))
