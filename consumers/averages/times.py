"""Times of RFC 3339 into microseconds, many at once."""

from collections.abc import Sequence
from datetime import date
from typing import cast

import numpy as np
from numpy.typing import NDArray

from consumers.averages.columns import EPOCH, Flags, Indices, Integers, microseconds, text_table
from prices.publishing.events import read_time

# As the outbox writes them: 2026-01-05T12:00:00Z, with a dot and up to six decimals before the Z.
_FORM = b"0000-00-00T00:00:00"
_SHORTEST, _LONGEST = len(_FORM) + 1, len(_FORM) + 8
_FIRST_DECIMAL = len(_FORM) + 1
_LOWEST = np.frombuffer(_FORM, dtype=np.uint8)[:, np.newaxis]
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
    times, is_plain = _parse_plain(letters, lengths)
    for index in np.flatnonzero(~is_plain).tolist():
        times[index] = microseconds(read_time(texts[index]))
    return times


def _parse_plain(letters: NDArray[np.uint8], lengths: Indices) -> tuple[Integers, Flags]:
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
    has_decimals = (letters[len(_FORM)] == ord(".")) & (lengths > _SHORTEST + 1) & (lengths <= _LONGEST)
    is_in_form = (letters[: len(_FORM)] - _LOWEST <= _ABOVE).all(axis=0)
    return cast(Flags, is_in_form & (is_whole | has_decimals) & (last == ord("Z")))


def _first_day_of(months: Integers) -> Integers:
    """Return the days from 1970 to the first of each month, where months are counted from January 1970."""
    return months.view("M8[M]").astype("M8[D]").view(np.int64)
