"""The prices that the simulator tells: those of providers/adapters/simulated.py, for any symbol."""

import re
from dataclasses import dataclass
from decimal import Decimal

from providers.adapters.simulated import price_at

UNKNOWN_PREFIX = "UNKNOWN"
_SYMBOL = re.compile(r"[A-Za-z0-9.\-_&=^:/]{1,32}")
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class DayPrices:
    """The prices of a day in UTC, up to one second of it."""

    last: Decimal
    open: Decimal
    high: Decimal
    low: Decimal
    # The last one of the day before.
    previous: Decimal

    @property
    def change(self) -> Decimal:
        """The difference from the day before."""
        return self.last - self.previous

    @property
    def change_percent(self) -> Decimal:
        """The difference from the day before in percent, four decimals."""
        return (100 * self.change / self.previous).quantize(Decimal("0.0001"))


def is_known(symbol: str) -> bool:
    """Return whether there is a price: every symbol has one unless it begins with UNKNOWN."""
    return _SYMBOL.fullmatch(symbol) is not None and not symbol.upper().startswith(UNKNOWN_PREFIX)


def day_prices(symbol: str, second: int) -> DayPrices:
    """Return a symbol's prices at an epoch second, in USD; its case is of no matter."""
    midnight = second - second % _DAY_S
    last, first, previous = (
        Decimal(price_at(symbol.upper(), moment)) for moment in (second, midnight, midnight - 1)
    )
    # The day's extremes would take a price of each second: those of its two ends are close enough.
    return DayPrices(last=last, open=first, high=max(last, first), low=min(last, first), previous=previous)
