"""One symbol where the service asks for several."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import datetime

from prices.latest.fetch import fetch_prices
from prices.latest.services import Served, latest_prices
from prices.latest.single_flight import Land, SingleFlight
from prices.models import PricePoint


def fetch_price(provider: str, symbol: str, *, reuse_s: float = math.inf) -> PricePoint:
    """Return the point that a fetch lands; raises the error that it lands."""
    landed: dict[str, PricePoint | Exception] = {}
    fetch_prices(provider, [symbol], landed.__setitem__, reuse_s=reuse_s)
    found = landed[symbol]
    if isinstance(found, Exception):
        raise found
    return found


def latest_price(symbol: str, provider: str | None, *, now: datetime, max_age_s: int | None = None) -> Served:
    """Return the price of a symbol; raises why there is none."""
    found = latest_prices([symbol], provider, now=now, max_age_s=max_age_s)[symbol]
    if isinstance(found, Exception):
        raise found
    return found


def join(
    flights: SingleFlight, provider: str, symbol: str, fetch: Callable[[str, str], PricePoint]
) -> Future[PricePoint]:
    """Return the fetch of a symbol that is under way, or begin one by a function that returns its point."""

    def land_one(name: str, symbols: Sequence[str], land: Land) -> None:
        (asked,) = symbols
        land(asked, fetch(name, asked))

    return flights.join(provider, [[symbol]], land_one)[symbol]
