"""Rows of symbol_averages as data for a binary COPY, packed by numpy.

The format: PostgreSQL's documentation of COPY, "Binary Format", and numeric_recv in its source. A numeric
is written with a fixed number of base-10,000 digits, zeros before and after included: PostgreSQL takes
these away when it reads them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from consumers.averages.columns import (
    FRACTION,
    NO_TIME,
    WHOLE,
    Events,
    Flags,
    Indices,
    Integers,
    merge_codes,
    unsigned_halves,
)
from consumers.averages.windows import Averaged
from prices.models.symbol_average import WINDOW_POINTS

# Those of varying length come first, and the average, which may be cut off, comes last.
COLUMNS = ("symbol", "currency", "provider", "event_id", "price", "window_size", "observed_at", "average")
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
# Some 100 KB.
PIECE_ROWS = 1_000
TRAILER = (-1).to_bytes(2, "big", signed=True)

_NULL = -1
# 12 digits before the point make three digits of base 10,000; 16 decimals four more, 17 five.
_WHOLE_DIGITS, _PRICE_DIGITS, _MEAN_DIGITS = 3, 7, 8
_WEIGHT = _WHOLE_DIGITS - 1
_BASE = 10_000
# How many decimals a digit has without zeros at their end: 0 for 0, 1 for 1000, 4 for 1.
_DECIMALS = np.array([len(f"{digit:04}".rstrip("0")) for digit in range(_BASE)])
_PRICE = [
    *(("digits", ">i2"), ("weight", ">i2"), ("sign", ">i2"), ("scale", ">i2")),
    ("values", ">i2", _PRICE_DIGITS),
]
_MEAN = np.dtype([*_PRICE[:-1], ("values", ">i2", _MEAN_DIGITS)])
_ROW = np.dtype(
    [
        ("id_length", ">i4"),
        ("id", ">u8", 2),
        ("price_length", ">i4"),
        ("price", _PRICE),
        ("size_length", ">i4"),
        ("size", ">i2"),
        ("observed_length", ">i4"),
        ("observed", ">i8"),
        ("average_length", ">i4"),
        ("average", _MEAN),
    ]
)
# What only moves is bytes: numpy gives tables that it concatenates the machine's own byte order.
_BYTES = np.dtype((np.void, _ROW.itemsize))
_OBSERVED, _AFTER_OBSERVED = (int(_ROW.fields[name][1]) for name in ("observed", "average_length"))  # type: ignore[index]  # it has fields


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of events, in their order, but for what depends on other events: sizes and averages.

    prefixes  what rows begin with, each once: the number of fields, a symbol, a currency and a provider
    codes     of each row, the index of its prefix
    suffixes  the bytes that follow, with room for a time and an average that may not be there
    has_time  whether the time is there
    """

    prefixes: list[bytes]
    codes: Indices
    suffixes: NDArray[np.void]
    has_time: Flags


def rows_of(events: Events) -> Rows:
    """Return the rows of events."""
    table = np.zeros(len(events), dtype=_ROW)
    has_time = events.observed != NO_TIME
    table["id_length"], table["size_length"] = 16, 2
    table["id"] = unsigned_halves(events.points)
    table["observed_length"] = np.where(has_time, 8, _NULL)
    table["observed"] = events.observed
    _fill_numeric(
        table, "price", [*_digits(events.points[:, WHOLE], 3), *_digits(events.points[:, FRACTION], 4)]
    )
    prefixes, codes = _prefixes(events)
    return Rows(prefixes, codes, table.view(_BYTES), has_time)


def concatenate_rows(parts: Sequence[Rows]) -> Rows:
    """Return several tables of rows as one, in their order; there must be one."""
    prefixes, codes = merge_codes([(part.prefixes, part.codes) for part in parts])
    return Rows(
        prefixes=prefixes,
        codes=codes,
        suffixes=np.concatenate([part.suffixes for part in parts]),
        has_time=np.concatenate([part.has_time for part in parts]),
    )


def copy_data(averaged: Averaged, rows: Rows) -> Iterator[bytes]:
    """Yield the data of the new points' rows, in the order of COLUMNS; nothing where there are none.

    `rows` are those of the events of which `averaged` was made. The pieces are to be sent as they come:
    PostgreSQL stores one while the next is packed.
    """
    new = np.flatnonzero(averaged.arrival >= 0)
    for begin in range(0, len(new), PIECE_ROWS):
        piece = b"".join(_pack(averaged, rows, new[begin : begin + PIECE_ROWS]))
        yield piece if begin else HEADER + piece
    if len(new):
        yield TRAILER


def _pack(averaged: Averaged, rows: Rows, new: Indices) -> Iterator[bytes]:
    arrival, sizes = averaged.arrival[new], averaged.sizes[new]
    table, is_full = rows.suffixes[arrival].view(_ROW), sizes == WINDOW_POINTS
    table["size"] = sizes
    parts, last = np.divmod(averaged.fractions[new], 10)
    _fill_numeric(table, "average", [*_digits(averaged.wholes[new], 3), *_digits(parts, 4), last * 1_000])
    table["average_length"][~is_full] = _NULL
    prefixes = map(rows.prefixes.__getitem__, rows.codes[arrival].tolist())
    suffixes = _suffixes(table, has_average=is_full, has_time=rows.has_time[arrival])
    return chain.from_iterable(zip(prefixes, suffixes, strict=True))


def _prefixes(events: Events) -> tuple[list[bytes], Indices]:
    count = len(events.sources)
    pairs, codes = np.unique(events.codes * count + events.source_codes, return_inverse=True)
    prefixes = [
        _prefix(*events.series[pair // count], events.sources[pair % count]) for pair in pairs.tolist()
    ]
    return prefixes, codes


@lru_cache(maxsize=50_000)
def _prefix(symbol: str, currency: str | None, source: str) -> bytes:
    return len(COLUMNS).to_bytes(2, "big") + b"".join(map(_text, (symbol, currency, source)))


def _text(text: str | None) -> bytes:
    if text is None:
        return _NULL.to_bytes(4, "big", signed=True)
    encoded = text.encode()
    return len(encoded).to_bytes(4, "big") + encoded


def _suffixes(table: NDArray[np.void], *, has_average: Flags, has_time: Flags) -> list[bytes]:
    data, width = table.tobytes(), table.itemsize
    begins = range(0, len(data), width)
    ends = np.where(has_average, width, width - _MEAN.itemsize) + np.arange(len(table)) * width
    suffixes = [data[begin:end] for begin, end in zip(begins, ends.tolist(), strict=True)]
    for row in np.flatnonzero(~has_time).tolist():
        suffixes[row] = suffixes[row][:_OBSERVED] + suffixes[row][_AFTER_OBSERVED:]
    return suffixes


def _fill_numeric(table: NDArray[np.void], name: str, digits: Sequence[Integers]) -> None:
    """Write numbers by their digits of base 10,000, of which there are always as many."""
    numeric = table[name]
    table[f"{name}_length"] = numeric.dtype.itemsize
    numeric["digits"] = len(digits)
    numeric["weight"] = _WEIGHT
    numeric["scale"] = _scale(digits[_WHOLE_DIGITS:])
    for index, column in enumerate(digits):
        numeric["values"][:, index] = column


def _digits(numbers: Integers, count: int) -> list[Integers]:
    """Return the last `count` digits of base 10,000, the highest first."""
    digits: list[Integers] = []
    for _ in range(count - 1):
        numbers, digit = np.divmod(numbers, _BASE)
        digits.append(digit)
    return [numbers, *reversed(digits)]


def _scale(digits: Sequence[Integers]) -> Integers:
    """Return how many decimals are left without trailing zeros."""
    scale = np.zeros(len(digits[0]), dtype=np.int64)
    for index, digit in enumerate(digits):
        np.copyto(scale, 4 * index + _DECIMALS[digit], where=digit != 0)
    return scale
