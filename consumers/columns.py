"""Price events as columns: a batch as numpy arrays with one row an event.

A point is four 64-bit integers: its id in two halves, and its price as a whole number and billionths of a
thousandth (10^-12), which hold every sound price exactly.
"""

from binascii import unhexlify
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Self, TypeAlias, TypeVar
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from prices.events import PriceEvent
from providers.base import MAX_DECIMALS

Integers: TypeAlias = NDArray[np.int64]
Places: TypeAlias = NDArray[np.intp]
Flags: TypeAlias = NDArray[np.bool_]
Item = TypeVar("Item", bound=Hashable)

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

_PLACES_OF_DASHES = [8, 13, 18, 23]


@dataclass(frozen=True, slots=True)
class Events:
    """Events in the order of their arrival.

    symbols       each symbol once
    codes         (n) of each event, the place of its symbol in `symbols`
    points        (n, 4) its id and price
    sources       each provider once
    source_codes  (n) the place of its provider in `sources`
    observed      (n) microseconds since 2000 in UTC, or NO_TIME
    """

    symbols: list[str]
    codes: Places
    points: Integers
    sources: list[str]
    source_codes: Places
    observed: Integers

    def __len__(self) -> int:
        return len(self.points)

    def select(self, rows: Flags) -> Self:
        """Give those events alone that are marked."""
        symbols, codes = _still_used(self.symbols, self.codes[rows])
        sources, source_codes = _still_used(self.sources, self.source_codes[rows])
        return type(self)(
            symbols=symbols,
            codes=codes,
            points=self.points[rows],
            sources=sources,
            source_codes=source_codes,
            observed=self.observed[rows],
        )


def columns_of(events: Iterable[PriceEvent]) -> Events:
    """Give events as columns."""
    listed = list(events)
    symbols, codes = numbered([each.symbol for each in listed])
    sources, source_codes = numbered([each.provider for each in listed])
    points = np.empty((len(listed), 4), dtype=np.int64)
    for row, each in enumerate(listed):
        whole = int(each.price)
        points[row] = (*halves_of_id(each.event_id), whole, int((each.price - whole).scaleb(MAX_DECIMALS)))
    return Events(
        symbols=symbols,
        codes=codes,
        points=points,
        sources=sources,
        source_codes=source_codes,
        observed=np.array([microseconds(each.observed_at) for each in listed], dtype=np.int64),
    )


def concatenate(parts: Sequence[Events]) -> Events:
    """Give several columns as one, in their order."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return columns_of(())
    symbols, codes = renumbered([(part.symbols, part.codes) for part in parts])
    sources, source_codes = renumbered([(part.sources, part.source_codes) for part in parts])
    return Events(
        symbols=symbols,
        codes=codes,
        points=np.concatenate([part.points for part in parts]),
        sources=sources,
        source_codes=source_codes,
        observed=np.concatenate([part.observed for part in parts]),
    )


def numbered(items: Sequence[Item]) -> tuple[list[Item], Places]:
    """Give each item once, as they come first, and of each one in turn its place among these."""
    places = {item: place for place, item in enumerate(dict.fromkeys(items))}
    return list(places), np.fromiter(map(places.__getitem__, items), dtype=np.intp, count=len(items))


def renumbered(parts: Sequence[tuple[list[Item], Places]]) -> tuple[list[Item], Places]:
    """Join lists of names, each once, and the places in them."""
    names, places = numbered([name for names, _codes in parts for name in names])
    of_parts = np.split(places, np.cumsum([len(names) for names, _codes in parts[:-1]], dtype=np.intp))
    codes = [of_part[codes] for of_part, (_names, codes) in zip(of_parts, parts, strict=True)]
    return names, np.concatenate(codes)


def _still_used(names: list[str], codes: Places) -> tuple[list[str], Places]:
    used, places = np.unique(codes, return_inverse=True)
    return [names[code] for code in used], places


def microseconds(moment: datetime | None) -> int:
    """Give a time as PostgreSQL's binary format has it; NO_TIME for None."""
    return NO_TIME if moment is None else (moment - EPOCH) // MICROSECOND


def moment_of(count: int) -> datetime | None:
    """Give the time that `microseconds` made a number of."""
    return None if count == NO_TIME else EPOCH + int(count) * MICROSECOND


def halves_of_texts(ids: NDArray[np.bytes_]) -> Integers:
    """Give ids in their usual form, 36 characters, as (n, 2) signed halves; ValueError for any other."""
    if (ids.view(np.uint8).reshape(-1, 36)[:, _PLACES_OF_DASHES] != ord("-")).any():
        raise ValueError("an id has no dashes where they belong")
    octets = unhexlify(ids.tobytes().translate(None, b"-"))
    if len(octets) != 16 * len(ids):
        raise ValueError("an id has too many dashes")
    halves = np.frombuffer(octets, dtype=">u8").astype(np.uint64).reshape(-1, 2)
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
