"""The view of a symbol's page."""

from typing import Any

from django.http import HttpRequest

from prices.access.rights import Access
from prices.clock import recent_now
from prices.pages.chart_library import NAME
from prices.pages.page import NothingToShowError, Shown, page
from prices.pages.symbol.rows import GapRow, read_symbol
from prices.symbols import SYMBOL_ALPHABET, normalise_symbol


@page
def symbol(request: HttpRequest, access: Access, symbol: str) -> Shown:
    """Show a symbol's prices and averages over time, and what each of them is made of."""
    name = normalise_symbol(symbol.removesuffix("/"))
    if name is None:
        raise NothingToShowError(f"This is no symbol: those have 1 to 32 {SYMBOL_ALPHABET}.")
    now = recent_now()
    shown = read_symbol(name, now=now, access=access)
    if shown is None:
        raise NothingToShowError(f"No job polls {name}, and there is no price of it.")
    gaps = [_gap(row) for row in shown.gaps]
    return "pages/symbol.html", {"shown": shown, "now": now, "gaps": gaps, "library": NAME}


def _gap(row: GapRow) -> dict[str, Any]:
    """Return what the chart is told of a gap: seconds of the epoch."""
    return {"from": row.gap.from_due.timestamp(), "to": row.gap.to_due.timestamp()}
