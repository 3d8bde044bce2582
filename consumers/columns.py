"""Price events as columns: a batch as numpy arrays with one row an event.

A point is four 64-bit integers: its id in two halves, and its price as a whole number and billionths of a
thousandth (10^-12), which hold every sound price exactly.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TypeAlias
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from prices.events import PriceEvent
from providers.base import MAX_DECIMALS

Integers: TypeAlias = NDArray[np.int64]

# The columns of a point.
HIGH, LOW, WHOLE, FRACTION = range(4)
# So many fractions make a whole.
ONE = 10**MAX_DECIMALS
NO_POINTS: Integers = np.empty((0, 4), dtype=np.int64)

# PostgreSQL counts microseconds from here.
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
NO_TIME = -(2**63)

# Added to each half of an id: signed halves then have the order of PostgreSQL's unsigned uuids.
_SHIFT = 1 << 63
_HALF = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Events:
    """Events in the order of their arrival.

    symbols    each symbol once
    codes      (n) of each event, the place of its symbol in `symbols`
    points     (n, 4) its id and price
    sources    its provider
    observed   (n) microseconds since 2000 in UTC, or NO_TIME
    """

    symbols: list[str]
    codes: NDArray[np.intp]
    points: Integers
    sources: list[str]
    observed: Integers

    def __len__(self) -> int:
        return len(self.sources)


class Collector:
    """Takes events one by one, and gives them as columns."""

    def __init__(self) -> None:
        self.codes_by_symbol: dict[str, int] = {}
        self.ids: list[int] = []
        self.codes: list[int] = []
        self.wholes: list[int] = []
        self.fractions: list[int] = []
        self.sources: list[str] = []
        self.observed: list[int] = []

    def add(self, event: PriceEvent) -> None:
        """Take one event."""
        whole = int(event.price)
        self.ids.append(event.event_id.int)
        self.codes.append(self.codes_by_symbol.setdefault(event.symbol, len(self.codes_by_symbol)))
        self.wholes.append(whole)
        self.fractions.append(int((event.price - whole).scaleb(MAX_DECIMALS)))
        self.sources.append(event.provider)
        self.observed.append(microseconds(event.observed_at))

    def events(self) -> Events:
        """Give what was taken."""
        points = np.empty((len(self.ids), 4), dtype=np.int64)
        points[:, :WHOLE] = halves_of(self.ids)
        points[:, WHOLE] = self.wholes
        points[:, FRACTION] = self.fractions
        return Events(
            symbols=list(self.codes_by_symbol),
            codes=np.array(self.codes, dtype=np.intp),
            points=points,
            sources=self.sources,
            observed=np.array(self.observed, dtype=np.int64),
        )


def columns_of(events: Iterable[PriceEvent]) -> Events:
    """Give events as columns."""
    collector = Collector()
    for event in events:
        collector.add(event)
    return collector.events()


def microseconds(moment: datetime | None) -> int:
    """Give a time as PostgreSQL's binary format has it; NO_TIME for None."""
    return NO_TIME if moment is None else (moment - EPOCH) // MICROSECOND


def moment_of(count: int) -> datetime | None:
    """Give the time that `microseconds` made a number of."""
    return None if count == NO_TIME else EPOCH + int(count) * MICROSECOND


def halves_of(ids: Sequence[int]) -> Integers:
    """Give ids of 128 bits as (n, 2) signed halves."""
    joined = b"".join([number.to_bytes(16, "big") for number in ids])
    halves = np.frombuffer(joined, dtype=">u8").astype(np.uint64).reshape(-1, 2)
    return (halves ^ np.uint64(_SHIFT)).view(np.int64)


def unsigned_halves(points: Integers) -> NDArray[np.uint64]:
    """Give the ids of points as (n, 2) halves in PostgreSQL's own form."""
    return np.ascontiguousarray(points[:, :WHOLE]).view(np.uint64) ^ np.uint64(_SHIFT)


def halves_of_id(event_id: UUID) -> tuple[int, int]:
    """Give one id as its signed halves."""
    return (event_id.int >> 64) - _SHIFT, (event_id.int & _HALF) - _SHIFT


def id_of(point: Integers) -> UUID:
    """Give the id of one point."""
    high, low = int(point[HIGH]) + _SHIFT, int(point[LOW]) + _SHIFT
    return UUID(int=high << 64 | low)


def decimal_of(whole: int, fraction: int, *, places: int = MAX_DECIMALS) -> Decimal:
    """Give a number of so many decimal places as a decimal without trailing zeros."""
    text = f"{int(whole)}.{int(fraction):0{places}}"
    return Decimal(text.rstrip("0").rstrip("."))
