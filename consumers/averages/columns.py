"""Price events as columns: a batch as numpy arrays with one row an event.

A point is four 64-bit integers: its id in two halves, and its price as a whole number and 10^-16 parts, which
hold every sound price exactly. Texts of ids and times are read into integers many at once.
"""

from binascii import unhexlify
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import TypeAlias, TypeVar, cast
from uuid import UUID

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from prices.publishing.events import PriceEvent, read_time
from providers.base import MAX_DECIMALS

Integers: TypeAlias = NDArray[np.int64]
Indices: TypeAlias = NDArray[np.intp]
Flags: TypeAlias = NDArray[np.bool_]
# A symbol and a currency, or none: what has averages of its own.
Series: TypeAlias = tuple[str, str | None]
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

    series        each symbol with a currency once
    codes         (n) of each event, the index of its series in `series`
    points        (n, 4) its id and price
    sources       each provider once
    source_codes  (n) the index of its provider in `sources`
    observed      (n) microseconds since 2000 in UTC, or NO_TIME
    """

    series: list[Series]
    codes: Indices
    points: Integers
    sources: list[str]
    source_codes: Indices
    observed: Integers

    def __post_init__(self) -> None:
        """Raise ValueError where a series is there twice: its windows would be too short."""
        if len(set(self.series)) < len(self.series):
            raise ValueError("a series is there twice")

    def __len__(self) -> int:
        return len(self.points)

    def take(self, order: Indices) -> "Events":
        """Return the events in another order: of each place the index of the event that is to stand there."""
        return replace(
            self,
            codes=self.codes[order],
            points=self.points[order],
            source_codes=self.source_codes[order],
            observed=self.observed[order],
        )


def columns_of(events: Iterable[PriceEvent]) -> Events:
    """Return events as columns."""
    listed = list(events)
    series, codes = factorize([(each.symbol, each.currency) for each in listed])
    sources, source_codes = factorize([each.provider for each in listed])
    points = np.empty((len(listed), 4), dtype=np.int64)
    for row, each in enumerate(listed):
        whole = int(each.price)
        points[row] = (*halves_of_id(each.event_id), whole, int((each.price - whole).scaleb(MAX_DECIMALS)))
    return Events(
        series=series,
        codes=codes,
        points=points,
        sources=sources,
        source_codes=source_codes,
        observed=np.array([microseconds(each.observed_at) for each in listed], dtype=np.int64),
    )


def concatenate(parts: Sequence[Events]) -> Events:
    """Return several columns as one, in their order."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return columns_of(())
    series, codes = merge_codes([(part.series, part.codes) for part in parts])
    sources, source_codes = merge_codes([(part.sources, part.source_codes) for part in parts])
    return Events(
        series=series,
        codes=codes,
        points=np.concatenate([part.points for part in parts]),
        sources=sources,
        source_codes=source_codes,
        observed=np.concatenate([part.observed for part in parts]),
    )


def factorize(items: Sequence[Item]) -> tuple[list[Item], Indices]:
    """Return each item once, as they come first, and of each one in turn its index among these."""
    indices: defaultdict[Item, int] = defaultdict(count().__next__)
    codes = np.fromiter(map(indices.__getitem__, items), dtype=np.intp, count=len(items))
    return list(indices), codes


def merge_codes(parts: Sequence[tuple[list[Item], Indices]]) -> tuple[list[Item], Indices]:
    """Join lists of names, each once, and the indices in them."""
    names, indices = factorize([name for names, _codes in parts for name in names])
    of_parts = np.split(indices, np.cumsum([len(names) for names, _codes in parts[:-1]], dtype=np.intp))
    codes = [of_part[codes] for of_part, (_names, codes) in zip(of_parts, parts, strict=True)]
    return names, np.concatenate(codes)


def microseconds(moment: datetime | None) -> int:
    """Return a time as PostgreSQL's binary format has it; NO_TIME for None."""
    return NO_TIME if moment is None else (moment - EPOCH) // MICROSECOND


def moment_of(count: int) -> datetime | None:
    """Return the time that `microseconds` made a number of."""
    return None if count == NO_TIME else EPOCH + int(count) * MICROSECOND


def unsigned_halves(points: Integers) -> NDArray[np.uint64]:
    """Return the ids of points as (n, 2) halves in PostgreSQL's own form."""
    return np.ascontiguousarray(points[:, :WHOLE]).view(np.uint64) ^ np.uint64(_SHIFT)


def halves_of_id(event_id: UUID) -> tuple[int, int]:
    """Return one id as its signed halves."""
    return (event_id.int >> 64) - _SHIFT, (event_id.int & _HALF) - _SHIFT


def id_of(point: Integers) -> UUID:
    """Return the id of one point."""
    high, low = int(point[HIGH]) + _SHIFT, int(point[LOW]) + _SHIFT
    return UUID(int=high << 64 | low)


def decimal_of(whole: int, fraction: int, *, places: int = MAX_DECIMALS) -> Decimal:
    """Return a number of so many decimal places as a decimal without trailing zeros."""
    text = f"{int(whole)}.{int(fraction):0{places}}"
    return Decimal(text.rstrip("0").rstrip("."))


def text_table(joined: bytes, lengths: Sequence[int], *, rows: int) -> tuple[NDArray[np.uint8], Indices]:
    """Return the letters of texts that follow each other, a row for each position in them, and their lengths.

    What follows the end of a text in its column says nothing.
    """
    sizes = np.array(lengths, dtype=np.intp)
    # The last texts have room for letters after their ends, too.
    padded = np.frombuffer(joined + bytes(rows), dtype=np.uint8)
    windows = sliding_window_view(padded, rows)
    return np.ascontiguousarray(windows[np.cumsum(sizes) - sizes].T), sizes


def parse_uuids(texts: bytes) -> Integers:
    """Return ids that follow each other, of 36 characters each, as (n, 2) signed halves.

    Raise ValueError where one is not in its usual form.
    """
    letters = np.frombuffer(texts, dtype=np.uint8).reshape(-1, 36)
    if (letters[:, _PLACES_OF_DASHES] != ord("-")).any():
        raise ValueError("an id has no dashes where they belong")
    octets = unhexlify(texts.translate(None, b"-"))
    if len(octets) != 16 * len(letters):
        raise ValueError("an id has too many dashes")
    halves = np.frombuffer(octets, dtype=">u8").astype(np.uint64).reshape(-1, 2)
    return (halves ^ np.uint64(_SHIFT)).view(np.int64)


# Times as the outbox writes them: 2026-01-05T12:00:00Z, with a dot and up to six decimals before the Z.
_TIME_FORM = b"0000-00-00T00:00:00"
_SHORTEST, _LONGEST = len(_TIME_FORM) + 1, len(_TIME_FORM) + 8
_FIRST_DECIMAL = len(_TIME_FORM) + 1
_LOWEST = np.frombuffer(_TIME_FORM, dtype=np.uint8)[:, np.newaxis]
# A digit is up to nine above 0, and all else is as it is.
_ABOVE = np.where(ord("0") == _LOWEST, np.uint8(9), np.uint8(0))
_DECIMALS = np.arange(_FIRST_DECIMAL, _LONGEST - 1)[:, np.newaxis]
# Where two digits make a number: century, year, month, day, hour, minute, second.
_PAIRS = np.array([0, 2, 5, 8, 11, 14, 17])
_LEAST, _MOST = np.array([[1, 1, 0, 0, 0], [12, 31, 23, 59, 59]], dtype=np.uint8)[:, :, np.newaxis]

_FIRST_MONTH = 1970 * 12
_EPOCH_DAY = (EPOCH.date() - date(1970, 1, 1)).days


def parse_times(texts: Sequence[str]) -> Integers:
    """Return microseconds since 2000; raise ValueError where one is no time.

    Those that are written as the outbox does are read at once, and others one by one.
    """
    if not texts:
        return np.empty(0, dtype=np.int64)
    letters, lengths = text_table("".join(texts).encode("ascii"), list(map(len, texts)), rows=_LONGEST)
    times, is_plain = _parse_plain_times(letters, lengths)
    for index in np.flatnonzero(~is_plain).tolist():
        times[index] = microseconds(read_time(texts[index]))
    return times


def _parse_plain_times(letters: NDArray[np.uint8], lengths: Indices) -> tuple[Integers, Flags]:
    """Return the times, and which of the texts are written as the outbox does: others' times say nothing."""
    digits = letters - np.uint8(ord("0"))
    decimals = digits[_FIRST_DECIMAL:-1] * (lengths - 1 > _DECIMALS)
    # All below 100 where the text has its form.
    numbers = digits[_PAIRS] * np.uint8(10) + digits[_PAIRS + 1]
    century, year, month, day, hour, minute, second = numbers.astype(np.int64)
    year += century * 100
    months = year * 12 + month - 1 - _FIRST_MONTH
    first_day = _first_day_of(months)
    is_plain = (
        _has_form(letters, lengths)
        & (decimals <= 9).all(axis=0)
        & (numbers[2:] - _LEAST <= _MOST - _LEAST).all(axis=0)
        & (day <= _first_day_of(months + 1) - first_day)
        & (year >= 1)
    )
    days = first_day + day - 1 - _EPOCH_DAY
    seconds = days * 86_400 + hour * 3_600 + minute * 60 + second
    hundredths = decimals[0::2] * np.uint8(10) + decimals[1::2]
    high, middle, low = hundredths.astype(np.int64)
    return seconds * 1_000_000 + high * 10_000 + middle * 100 + low, is_plain


def _has_form(letters: NDArray[np.uint8], lengths: Indices) -> Flags:
    """Return which texts have the form up to their seconds, and a Z in the right place."""
    last = letters[np.minimum(lengths, _LONGEST) - 1, np.arange(len(lengths))]
    is_whole = lengths == _SHORTEST
    has_decimals = (letters[len(_TIME_FORM)] == ord(".")) & (lengths > _SHORTEST + 1) & (lengths <= _LONGEST)
    is_in_form = (letters[: len(_TIME_FORM)] - _LOWEST <= _ABOVE).all(axis=0)
    return cast(Flags, is_in_form & (is_whole | has_decimals) & (last == ord("Z")))


def _first_day_of(months: Integers) -> Integers:
    """Return the days from 1970 to the first of each month, where months are counted from January 1970."""
    return months.view("M8[M]").astype("M8[D]").view(np.int64)
