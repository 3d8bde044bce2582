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

# Of a character its value as a hexadecimal digit, above 15 where it is none.
_HEX = np.full(256, 255, dtype=np.uint8)
_HEX[list(b"0123456789abcdef")] = range(16)
_HEX[list(b"ABCDEF")] = range(10, 16)
_PLACES_OF_DASHES = [8, 13, 18, 23]
_PLACES_OF_DIGITS = [place for place in range(36) if place not in _PLACES_OF_DASHES]


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


def columns_of(events: Iterable[PriceEvent]) -> Events:
    """Give events as columns."""
    listed = list(events)
    codes_by_symbol = {
        symbol: code for code, symbol in enumerate(dict.fromkeys(each.symbol for each in listed))
    }
    points = np.empty((len(listed), 4), dtype=np.int64)
    for row, each in enumerate(listed):
        whole = int(each.price)
        points[row] = (*halves_of_id(each.event_id), whole, int((each.price - whole).scaleb(MAX_DECIMALS)))
    return Events(
        symbols=list(codes_by_symbol),
        codes=np.array([codes_by_symbol[each.symbol] for each in listed], dtype=np.intp),
        points=points,
        sources=[each.provider for each in listed],
        observed=np.array([microseconds(each.observed_at) for each in listed], dtype=np.int64),
    )


def concatenate(parts: Sequence[Events]) -> Events:
    """Give several columns as one, in their order."""
    if len(parts) == 1:
        return parts[0]
    symbols = dict.fromkeys(symbol for part in parts for symbol in part.symbols)
    codes_by_symbol = {symbol: code for code, symbol in enumerate(symbols)}
    codes = [
        np.array([codes_by_symbol[symbol] for symbol in part.symbols], dtype=np.intp)[part.codes]
        for part in parts
    ]
    return Events(
        symbols=list(codes_by_symbol),
        codes=np.concatenate([np.empty(0, dtype=np.intp), *codes]),
        points=np.concatenate([NO_POINTS, *(part.points for part in parts)]),
        sources=[source for part in parts for source in part.sources],
        observed=np.concatenate([np.empty(0, dtype=np.int64), *(part.observed for part in parts)]),
    )


def microseconds(moment: datetime | None) -> int:
    """Give a time as PostgreSQL's binary format has it; NO_TIME for None."""
    return NO_TIME if moment is None else (moment - EPOCH) // MICROSECOND


def moment_of(count: int) -> datetime | None:
    """Give the time that `microseconds` made a number of."""
    return None if count == NO_TIME else EPOCH + int(count) * MICROSECOND


def halves_of_texts(ids: Sequence[str]) -> Integers:
    """Give ids in their usual form, 36 characters, as (n, 2) signed halves; ValueError for any other."""
    letters = np.frombuffer("".join(ids).encode(), dtype=np.uint8)
    if len(letters) != 36 * len(ids) or any(len(each) != 36 for each in ids):
        raise ValueError("an id has not 36 characters")
    table = letters.reshape(-1, 36)
    digits = _HEX[table[:, _PLACES_OF_DIGITS]]
    if (table[:, _PLACES_OF_DASHES] != ord("-")).any() or (digits > 15).any():
        raise ValueError("an id is not made of hexadecimal digits and dashes")
    octets = digits[:, ::2] << 4 | digits[:, 1::2]
    halves = np.ascontiguousarray(octets).view(">u8").astype(np.uint64)
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
