"""Rows of symbol_averages as data for a binary COPY, packed by numpy.

The format: PostgreSQL's documentation of COPY, "Binary Format", and numeric_recv in its source. A numeric
is written with a fixed number of base-10,000 digits, zeros before and after included: PostgreSQL takes
these away when it reads them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from consumers.averages import Averaged
from consumers.columns import (
    FRACTION,
    NO_TIME,
    WHOLE,
    Events,
    Flags,
    Integers,
    Places,
    renumbered,
    unsigned_halves,
)
from prices.models.symbol_average import WINDOW_POINTS
from providers.base import MAX_DECIMALS

# Those of varying length come first, and the average, which may be cut off, comes last.
COLUMNS = ("symbol", "provider", "event_id", "price", "window_size", "observed_at", "average")
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
# Some 100 KB.
PIECE_ROWS = 1_000
TRAILER = (-1).to_bytes(2, "big", signed=True)

_NULL = -1
_MEAN_DECIMALS = MAX_DECIMALS + 1
# 12 digits before the point make three digits of base 10,000; 12 decimals three more, 13 four.
_WEIGHT = 2
_PRICE = [("digits", ">i2"), ("weight", ">i2"), ("sign", ">i2"), ("scale", ">i2"), ("values", ">i2", 6)]
_MEAN = np.dtype([*_PRICE[:-1], ("values", ">i2", 7)])
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

    heads     what rows begin with, each once: the number of fields, a symbol and a provider
    codes     of each row, the place of its head among them
    tails     the bytes that follow, with room for a time and an average that may not be there
    has_time  whether the time is there
    """

    heads: list[bytes]
    codes: Places
    tails: NDArray[np.void]
    has_time: Flags

    def select(self, rows: Flags) -> Self:
        """Give those rows alone that are marked."""
        return type(self)(self.heads, self.codes[rows], self.tails[rows], self.has_time[rows])


def rows_of(events: Events) -> Rows:
    """Give the rows of events."""
    table = np.zeros(len(events), dtype=_ROW)
    has_time = events.observed != NO_TIME
    table["id_length"], table["size_length"] = 16, 2
    table["id"] = unsigned_halves(events.points)
    table["observed_length"] = np.where(has_time, 8, _NULL)
    table["observed"] = events.observed
    _fill_numeric(table, "price", events.points[:, WHOLE], events.points[:, FRACTION], decimals=MAX_DECIMALS)
    heads, codes = _heads(events)
    return Rows(heads, codes, table.view(_BYTES), has_time)


def concatenate_rows(parts: Sequence[Rows]) -> Rows:
    """Give several tables of rows as one, in their order; there must be one."""
    heads, codes = renumbered([(part.heads, part.codes) for part in parts])
    return Rows(
        heads=heads,
        codes=codes,
        tails=np.concatenate([part.tails for part in parts]),
        has_time=np.concatenate([part.has_time for part in parts]),
    )


def copy_data(averaged: Averaged, rows: Rows) -> Iterator[bytes]:
    """Give the data of the new points' rows, in the order of COLUMNS; nothing where there are none.

    `rows` are those of the events of which `averaged` was made. The pieces are to be sent as they come:
    PostgreSQL stores one while the next is packed.
    """
    new = np.flatnonzero(averaged.arrival >= 0)
    for begin in range(0, len(new), PIECE_ROWS):
        piece = b"".join(_pack(averaged, rows, new[begin : begin + PIECE_ROWS]))
        yield piece if begin else HEADER + piece
    if len(new):
        yield TRAILER


def _pack(averaged: Averaged, rows: Rows, new: Places) -> Iterator[bytes]:
    arrival, sizes = averaged.arrival[new], averaged.sizes[new]
    table, is_full = rows.tails[arrival].view(_ROW), sizes == WINDOW_POINTS
    table["size"] = sizes
    _fill_numeric(table, "average", averaged.wholes[new], averaged.fractions[new], decimals=_MEAN_DECIMALS)
    table["average_length"][~is_full] = _NULL
    heads = map(rows.heads.__getitem__, rows.codes[arrival].tolist())
    tails = _tails(table, has_average=is_full, has_time=rows.has_time[arrival])
    return chain.from_iterable(zip(heads, tails, strict=True))


def _heads(events: Events) -> tuple[list[bytes], Places]:
    count = len(events.sources)
    pairs, codes = np.unique(events.codes * count + events.source_codes, return_inverse=True)
    heads = [_head(events.symbols[pair // count], events.sources[pair % count]) for pair in pairs.tolist()]
    return heads, codes


@lru_cache(maxsize=50_000)
def _head(symbol: str, source: str) -> bytes:
    texts = (text.encode() for text in (symbol, source))
    fields = b"".join(len(text).to_bytes(4, "big") + text for text in texts)
    return len(COLUMNS).to_bytes(2, "big") + fields


def _tails(table: NDArray[np.void], *, has_average: Flags, has_time: Flags) -> list[bytes]:
    data, width = table.tobytes(), table.itemsize
    begins = range(0, len(data), width)
    ends = np.where(has_average, width, width - _MEAN.itemsize) + np.arange(len(table)) * width
    tails = [data[begin:end] for begin, end in zip(begins, ends.tolist(), strict=True)]
    for row in np.flatnonzero(~has_time).tolist():
        tails[row] = tails[row][:_OBSERVED] + tails[row][_AFTER_OBSERVED:]
    return tails


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


def _fill_digits(values: NDArray[Any], numbers: Integers) -> None:
    for column in range(values.shape[1] - 1, 0, -1):
        numbers, values[:, column] = np.divmod(numbers, 10_000)
    values[:, 0] = numbers


def _scale(fractions: Integers, *, decimals: int) -> Integers:
    """Give how many of the decimals are left without trailing zeros."""
    scale = np.zeros(len(fractions), dtype=np.int64)
    for places in range(decimals):
        is_longer = fractions % 10 ** (decimals - places) != 0
        if not is_longer.any():
            break
        scale[is_longer] = places + 1
    return scale
