"""A price as the pages show it, with how far it can be trusted."""

from dataclasses import dataclass
from datetime import datetime

from prices.latest.stored import point_freshness
from prices.models import PricePoint
from prices.pages.last_closes import Change
from providers.markets.freshness import Freshness, age_seconds
from providers.rate_limits.limits import time_in_words


@dataclass(frozen=True, slots=True)
class Quote:
    """A symbol's last price and how far it can be trusted; `age` is by the provider's time, in words."""

    point: PricePoint
    age: str
    freshness: Freshness
    change: Change | None


def quote_of(point: PricePoint, change: Change | None, *, now: datetime) -> Quote:
    """Return a point as a quote."""
    return Quote(point, age_in_words(point.known_time, now=now), point_freshness(point, now=now), change)


def age_in_words(moment: datetime | None, *, now: datetime) -> str:
    """Return how long ago a moment was by its largest units: `3 s`, `2 h 5 min`; or that it is not known."""
    if moment is None:
        return "unknown"
    words = time_in_words(int(age_seconds(moment, now=now))).split()
    return " ".join(words[:4])
