"""The window of a symbol: its last points by event id, and their exact mean. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Clamped, Context, Decimal, Inexact, InvalidOperation, Overflow
from functools import reduce
from typing import Self
from uuid import UUID

from prices.models.symbol_average import WINDOW_POINTS

# A sum of five sound prices has at most 25 digits and its fifth 26: more than this is never needed,
# and a digit that would be lost raises instead.
_EXACT = Context(prec=40, traps=[Inexact, InvalidOperation, Overflow, Clamped])
_FIFTH = Decimal("0.2")


def average_of(prices: Sequence[Decimal]) -> Decimal | None:
    """Give the exact mean of five prices, without trailing zeros; None for fewer than five.

    Raises decimal.Inexact where the prices have more digits than a sound price can have.
    """
    if len(prices) < WINDOW_POINTS:
        return None
    mean = _EXACT.multiply(reduce(_EXACT.add, prices), _FIFTH)
    # Through text: normalize() alone would leave 100 as 1E+2.
    return Decimal(format(_EXACT.normalize(mean), "f"))


@dataclass(frozen=True, slots=True)
class Window:
    """The last points of a symbol, at most five, in the order of their event ids."""

    event_ids: tuple[UUID, ...] = ()
    prices: tuple[Decimal, ...] = ()

    @property
    def size(self) -> int:
        """Points in the window, 0 to 5."""
        return len(self.event_ids)

    @property
    def is_full(self) -> bool:
        """Tell whether the window holds five points."""
        return self.size == WINDOW_POINTS

    @property
    def watermark(self) -> UUID | None:
        """The highest event id of the symbol; None before its first point."""
        return self.event_ids[-1] if self.event_ids else None

    @property
    def average(self) -> Decimal | None:
        """The exact mean of the window; None before the fifth point."""
        return average_of(self.prices)

    def add(self, event_id: UUID, price: Decimal) -> Self:
        """Give the window after one more point. Raises ValueError where the id is not the highest."""
        if self.event_ids and event_id <= self.event_ids[-1]:
            raise ValueError(f"{event_id} does not lie above the window's {self.event_ids[-1]}")
        kept = WINDOW_POINTS - 1
        return type(self)((*self.event_ids[-kept:], event_id), (*self.prices[-kept:], price))
