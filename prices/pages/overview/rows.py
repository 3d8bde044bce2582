"""What the overview shows of each symbol."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from prices.access.rights import Access
from prices.latest.known_symbols import KnownSymbol, known_symbols
from prices.latest.stored import point_freshness
from prices.models import PricePoint
from prices.pages.overview.last_closes import Change, changes_since_close
from prices.pages.overview.sparkline import sparklines
from prices.symbols import is_simulated
from providers.markets.freshness import Freshness, age_seconds
from providers.rate_limits.limits import time_in_words

ROWS = 100


@dataclass(frozen=True, slots=True)
class Quote:
    """A symbol's last price and how far it can be trusted; `age` is by the provider's time, in words."""

    point: PricePoint
    age: str
    freshness: Freshness
    change: Change | None


@dataclass(frozen=True, slots=True)
class Row:
    """A symbol on the overview; `quote` is None where no price is known yet."""

    symbol: str
    is_simulated: bool
    is_polled: bool
    is_paused: bool
    providers: Sequence[str]
    quote: Quote | None
    average: Decimal | None
    sparkline: str | None


@dataclass(frozen=True, slots=True)
class Overview:
    """A page of symbols in their order; `next_after` begins the next page, None on the last one."""

    rows: Sequence[Row]
    next_after: str | None


def read_overview(*, part: str, after: str, now: datetime, access: Access) -> Overview:
    """Return the symbols that contain a text and come after another one. Five queries."""
    found = known_symbols(part=part, after=after, limit=ROWS + 1, now=now, access=access)
    shown = found[:ROWS]
    points = [symbol.last for symbol in shown if symbol.last is not None]
    changes, lines = changes_since_close(points, now=now), sparklines(points)
    rows = [_row(each, changes.get(each.symbol), lines.get(each.symbol), now=now) for each in shown]
    return Overview(rows, shown[-1].symbol if len(found) > ROWS else None)


def _row(found: KnownSymbol, change: Change | None, sparkline: str | None, *, now: datetime) -> Row:
    statuses = {job.status for job in found.jobs}
    return Row(
        symbol=found.symbol,
        is_simulated=is_simulated(found.symbol),
        is_polled="active" in statuses,
        is_paused=statuses == {"paused"},
        providers=found.providers,
        quote=None if found.last is None else _quote(found.last, change, now=now),
        average=None if found.average is None else found.average.average,
        sparkline=sparkline,
    )


def _quote(point: PricePoint, change: Change | None, *, now: datetime) -> Quote:
    return Quote(point, age_in_words(point.known_time, now=now), point_freshness(point, now=now), change)


def age_in_words(moment: datetime | None, *, now: datetime) -> str:
    """Return how long ago a moment was by its largest units: `3 s`, `2 h 5 min`; or that it is not known."""
    if moment is None:
        return "unknown"
    words = time_in_words(int(age_seconds(moment, now=now))).split()
    return " ".join(words[:4])
