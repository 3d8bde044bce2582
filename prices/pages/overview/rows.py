"""What the overview shows of each symbol."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from prices.access.rights import Access
from prices.latest.known_symbols import KnownSymbol, known_symbols
from prices.pages.last_closes import Change, changes_since_close
from prices.pages.overview.sparkline import sparklines
from prices.pages.quotes import Quote, quote_of
from prices.symbols import is_simulated

ROWS = 500


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
        quote=None if found.last is None else quote_of(found.last, change, now=now),
        average=None if found.average is None else found.average.average,
        sparkline=sparkline,
    )
