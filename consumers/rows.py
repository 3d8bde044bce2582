"""Rows of symbol_averages as data for a binary COPY, packed by numpy.

The format: PostgreSQL's documentation of COPY, "Binary Format", and numeric_recv in its source. A numeric
is written with a fixed number of base-10,000 digits, zeros before and after included: PostgreSQL takes
these away when it reads them.
"""

from functools import lru_cache
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from consumers.averages import Averaged
from consumers.columns import FRACTION, NO_TIME, WHOLE, Events, Integers, unsigned_halves
from prices.models.symbol_average import WINDOW_POINTS
from providers.base import MAX_DECIMALS

# Those of varying length come first, and the average, which may be cut off, comes last.
COLUMNS = ("symbol", "provider", "event_id", "price", "window_size", "observed_at", "average")
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = (-1).to_bytes(2, "big", signed=True)

_NULL = -1
_MEAN_DECIMALS = MAX_DECIMALS + 1
# 12 digits before the point make three digits of base 10,000; 12 decimals three more, 13 four.
_WEIGHT = 2
_PRICE = [("digits", ">i2"), ("weight", ">i2"), ("sign", ">i2"), ("scale", ">i2"), ("values", ">i2", 6)]
_MEAN = [*_PRICE[:-1], ("values", ">i2", 7)]
_FIXED = [
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
_ROW = np.dtype(_FIXED)
_ROW_WITHOUT_TIME = np.dtype([field for field in _FIXED if field[0] != "observed"])


def copy_data(averaged: Averaged, events: Events) -> bytes:
    """Give the data of the new points' rows, in the order of COLUMNS; b"" where there are none."""
    new = np.flatnonzero(averaged.arrival >= 0)
    if not len(new):
        return b""
    has_time = events.observed[averaged.arrival[new]] != NO_TIME
    parts = [
        _rows(averaged, events, rows, has_time=with_time)
        for rows, with_time in ((new[has_time], True), (new[~has_time], False))
        if len(rows)
    ]
    return b"".join([HEADER, *parts, TRAILER])


def _rows(averaged: Averaged, events: Events, rows: NDArray[np.intp], *, has_time: bool) -> bytes:
    arrival = averaged.arrival[rows]
    table = np.zeros(len(rows), dtype=_ROW if has_time else _ROW_WITHOUT_TIME)
    table["id_length"] = 16
    table["id"] = unsigned_halves(averaged.points[rows])
    table["size_length"] = 2
    table["size"] = averaged.sizes[rows]
    table["observed_length"] = 8 if has_time else _NULL
    if has_time:
        table["observed"] = events.observed[arrival]
    points = averaged.points[rows]
    _fill_numeric(table, "price", points[:, WHOLE], points[:, FRACTION], decimals=MAX_DECIMALS)
    _fill_numeric(table, "average", averaged.wholes[rows], averaged.fractions[rows], decimals=_MEAN_DECIMALS)
    is_full = averaged.sizes[rows] == WINDOW_POINTS
    table["average_length"][~is_full] = _NULL
    return _join(_heads(averaged, events, rows), table, is_full)


def _heads(averaged: Averaged, events: Events, rows: NDArray[np.intp]) -> list[bytes]:
    symbols, sources = averaged.symbols, events.sources
    groups = np.searchsorted(averaged.bounds, rows, side="right") - 1
    return [
        _head(symbols[group], sources[place])
        for group, place in zip(groups.tolist(), averaged.arrival[rows].tolist(), strict=True)
    ]


@lru_cache(maxsize=50_000)
def _head(symbol: str, source: str) -> bytes:
    texts = (text.encode() for text in (symbol, source))
    fields = b"".join(len(text).to_bytes(4, "big") + text for text in texts)
    return len(COLUMNS).to_bytes(2, "big") + fields


def _join(heads: list[bytes], table: NDArray[np.void], is_full: NDArray[np.bool_]) -> bytes:
    data, width = table.tobytes(), table.itemsize
    short = width - np.dtype(_MEAN).itemsize
    ends = np.where(is_full, width, short) + np.arange(len(table)) * width
    begins = range(0, len(data), width)
    tails = [data[begin:end] for begin, end in zip(begins, ends.tolist(), strict=True)]
    return b"".join(chain.from_iterable(zip(heads, tails, strict=True)))


def _fill_numeric(
    table: NDArray[np.void], name: str, wholes: Integers, fractions: Integers, *, decimals: int
) -> None:
    numeric = table[name]
    values = numeric["values"]
    table[f"{name}_length"] = numeric.dtype.itemsize
    numeric["digits"] = values.shape[1]
    numeric["weight"] = _WEIGHT
    numeric["scale"] = _scale(fractions, decimals=decimals)
    _fill_digits(values[:, :3], wholes)
    places = 4 * (values.shape[1] - 3)
    _fill_digits(values[:, 3:], fractions * 10 ** (places - decimals))


def _fill_digits(values: NDArray[np.int16], numbers: Integers) -> None:
    for column in range(values.shape[1] - 1, 0, -1):
        numbers, values[:, column] = np.divmod(numbers, 10_000)
    values[:, 0] = numbers


def _scale(fractions: Integers, *, decimals: int) -> Integers:
    """Give how many of the decimals are left without trailing zeros."""
    scale = np.full(len(fractions), decimals, dtype=np.int64)
    for zeros in range(1, decimals + 1):
        ends_so = fractions % 10**zeros == 0
        if not ends_so.any():
            break
        scale[ends_so] = decimals - zeros
    return scale
