"""Messages that are in every way as the outbox writes them, read as columns by numpy.

An event's JSON has one form (prices/events.py), in which 22 quotation marks separate what is always the same
from what differs. So their places, found for all messages at once, tell where everything stands. Whatever
is written in another way is refused here, though it may be a price event: `decode_event` says.
"""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from typing import cast

import msgspec
import numpy as np
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message
from numpy.typing import NDArray

from consumers.columns import (
    HIGH,
    LOW,
    MICROSECOND,
    NO_TIME,
    Events,
    Integers,
    Places,
    halves_of_texts,
    microseconds,
    numbered,
)
from consumers.messages import LAST_MS, headers_of
from prices.events import MAX_AHEAD, VERSION, Headers
from prices.models import Precision
from prices.symbols import is_symbol
from providers.base import MAX_DECIMALS

# The outbox writes these two headers first.
_VERSION = ("v", VERSION)
_UNKNOWN = ("precision", Precision.UNKNOWN.encode())
_PRECISIONS = {("precision", precision.encode()) for precision in Precision}
_MAX_AHEAD_MS = MAX_AHEAD // MICROSECOND // 1000

_QUOTE, _DOT, _ZERO = b'".0'
_QUOTES = 22
# What is always the same, the number of the quote that it stands at, and how far from it it begins.
_PIECES = (
    (b'{"event_id":"', 0, -1),
    (b'","symbol":"', 3, 0),
    (b'","price":', 7, 0),
    (b',"timestamp":"', 10, -1),
    (b'","raw_response_id":"', 17, 0),
    (b'"}', 21, 0),
)
# The numbers of the quotes before the values; of the price, the one before its piece.
_EVENT_ID, _SYMBOL, _PRICE, _TIME, _RAW_ID = 2, 6, 7, 12, 20
_BEFORE_PRICE, _AFTER_SOURCE = len(b'","price":'), 17
_BETWEEN_TIME_AND_SOURCE = b'","source":"'
# A time, what is between, and a source of 64 characters. More would be digits that say nothing, of which a
# sender can write any number: what is remembered of times has to have a bound in bytes.
_MOST_TIME_AND_SOURCE = 128
_SAFE_SOURCE = re.compile(rb"[A-Za-z0-9_.\-]{1,64}")
_ID_LENGTH = 36
# Digits, a dot and decimals.
_PRICE_LENGTH = 2 * MAX_DECIMALS + 1
_POWERS = 10 ** np.arange(MAX_DECIMALS, -1, -1)
# Pieces of a fixed length are read, also where a message ends before them.
_PADDING = bytes(64)

_time_decoder = msgspec.json.Decoder(datetime)


class UnusualError(ValueError):
    """One of the messages is not as the outbox writes them."""


def read_events(messages: Sequence[Message]) -> Events:
    """Give the events of these messages, in their order. Raises ValueError where one is in another form."""
    keys, values = _texts_of(Message.key, messages), _texts_of(Message.value, messages)
    text = b"".join([*values, _PADDING])
    quotes = _find_quotes(text, _lengths(values))
    _check_keys(text, quotes, keys)
    _ids(text, quotes, _RAW_ID)
    points = np.concatenate([_ids(text, quotes, _EVENT_ID), _prices(text, quotes)], axis=1)
    _check_ids(points, messages)
    symbols, codes = numbered(keys)
    times, sources, source_codes = _times_and_sources(text, quotes)
    times[_have_no_time(messages)] = NO_TIME
    return Events(
        symbols=[_symbol(key) for key in symbols],
        codes=codes,
        points=points,
        sources=sources,
        source_codes=source_codes,
        observed=times,
    )


def _texts_of(part: Callable[[Message], bytes | None], messages: Sequence[Message]) -> list[bytes]:
    texts = list(map(part, messages))
    if None in texts:
        raise UnusualError("key or value")
    return cast(list[bytes], texts)


def _find_quotes(text: bytes, lengths: Places) -> Places:
    """Give the places of the messages' quotes, (n, 22), where all that is always the same is in its place."""
    places = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == _QUOTE)
    if len(places) != _QUOTES * len(lengths):
        raise UnusualError("quotes")
    quotes = places.reshape(-1, _QUOTES)
    ends = np.cumsum(lengths)
    if (quotes[:, 0] != ends - lengths + 1).any() or (quotes[:, -1] != ends - 2).any():
        raise UnusualError("begin or end")
    for piece, number, distance in _PIECES:
        if _texts(text, quotes[:, number] + distance, len(piece)).tobytes() != piece * len(quotes):
            raise UnusualError("form")
    return quotes


def _texts(text: bytes, begins: Places, length: int) -> NDArray[np.bytes_]:
    """Give the pieces of one length that begin at these places."""
    all_pieces = np.ndarray((len(text) - length + 1,), dtype=f"S{length}", buffer=text, strides=(1,))
    return all_pieces[begins]


def _check_keys(text: bytes, quotes: Places, keys: Sequence[bytes]) -> None:
    begins, ends = quotes[:, _SYMBOL] + 1, quotes[:, _SYMBOL + 1]
    lengths = _lengths(keys)
    if (lengths != ends - begins).any():
        raise UnusualError("key")
    expected = np.frombuffer(b"".join(keys), dtype=np.uint8)
    places = np.repeat(begins - (np.cumsum(lengths) - lengths), lengths) + np.arange(len(expected))
    if (np.frombuffer(text, dtype=np.uint8)[places] != expected).any():
        raise UnusualError("key")


def _ids(text: bytes, quotes: Places, number: int) -> Integers:
    if (quotes[:, number + 1] - quotes[:, number] != _ID_LENGTH + 1).any():
        raise UnusualError("id")
    return halves_of_texts(_texts(text, quotes[:, number] + 1, _ID_LENGTH))


def _check_ids(points: Integers, messages: Sequence[Message]) -> None:
    clocks, times = zip(*map(Message.timestamp, messages), strict=True)
    broker_ms = np.array(times, dtype=np.int64)
    if TIMESTAMP_NOT_AVAILABLE in clocks or broker_ms.min() < 0 or broker_ms.max() > LAST_MS:
        raise UnusualError("timestamp of the message")
    high, low = (points[:, half].view(np.uint64) ^ np.uint64(1 << 63) for half in (HIGH, LOW))
    is_ours = (high >> np.uint64(12) & np.uint64(0xF) == 7) & (low >> np.uint64(62) == 0b10)
    if not np.all(is_ours & ((high >> np.uint64(16)).astype(np.int64) <= broker_ms + _MAX_AHEAD_MS)):
        raise UnusualError("event_id")


def _prices(text: bytes, quotes: Places) -> Integers:
    """Give the prices, (n, 2): whole numbers, and 10^-12 parts."""
    begins = quotes[:, _PRICE] + _BEFORE_PRICE
    lengths = quotes[:, _PRICE + 3] - 1 - begins
    if lengths.min() < 1 or lengths.max() > _PRICE_LENGTH:
        raise UnusualError("price")
    # A row for each place in the texts.
    letters = _texts(text, begins, int(lengths.max())).view(np.uint8).reshape(len(begins), -1).T.copy()
    is_inside = np.arange(len(letters))[:, np.newaxis] < lengths
    is_dot = (letters == _DOT) & is_inside
    digits = letters - np.uint8(_ZERO)
    if not (is_dot | (digits <= 9) | ~is_inside).all():
        raise UnusualError("price")
    dots = np.where(is_dot.any(axis=0), is_dot.argmax(axis=0), lengths)
    decimals = lengths - dots - 1
    if not _are_sound(dots, decimals) or is_dot.sum() != (decimals >= 0).sum():
        raise UnusualError("price")
    wholes, fractions = np.zeros(len(begins), dtype=np.int64), np.zeros(len(begins), dtype=np.int64)
    for place, digit in enumerate(digits):
        np.copyto(wholes, wholes * 10 + digit, where=place < dots)
        np.copyto(fractions, fractions * 10 + digit, where=(place > dots) & is_inside[place])
    fractions *= _POWERS[np.maximum(decimals, 0)]
    # JSON has no zeros before a number, and nothing has the price 0.
    if ((digits[0] == 0) & (dots > 1)).any() or ((wholes | fractions) == 0).any():
        raise UnusualError("price")
    return np.stack([wholes, fractions], axis=1)


def _are_sound(digits: Places, decimals: Places) -> bool:
    """Tell whether prices have so many digits before the dot, and after it; -1 decimals: there is no dot."""
    return bool(
        np.all((digits >= 1) & (digits <= MAX_DECIMALS) & (decimals != 0) & (decimals <= MAX_DECIMALS))
    )


def _times_and_sources(text: bytes, quotes: Places) -> tuple[Integers, list[str], Places]:
    """Give the times in microseconds, the sources, and of each event the place of its source among them."""
    begins, ends = (quotes[:, _TIME] + 1).tolist(), quotes[:, _AFTER_SOURCE].tolist()
    distinct, codes = numbered([text[begin:end] for begin, end in zip(begins, ends, strict=True)])
    times, sources = zip(*map(_time_and_source, distinct), strict=True)
    names, name_codes = numbered(sources)
    return np.array(times, dtype=np.int64)[codes], names, name_codes[codes]


@lru_cache(maxsize=50_000)
def _time_and_source(text: bytes) -> tuple[int, str]:
    """Read a time, and the source after it. The same few come often: providers tell whole seconds."""
    if len(text) > _MOST_TIME_AND_SOURCE:
        raise UnusualError("timestamp")
    time, between, source = text.partition(_BETWEEN_TIME_AND_SOURCE)
    if not between or _SAFE_SOURCE.fullmatch(source) is None:
        raise UnusualError("source")
    moment = _time_decoder.decode(b'"%s"' % time)
    if moment.tzinfo is None:
        raise UnusualError("timestamp")
    try:
        return microseconds(moment.astimezone(UTC)), source.decode()
    except OverflowError as error:
        raise UnusualError("timestamp") from error


def _have_no_time(messages: Sequence[Message]) -> NDArray[np.bool_]:
    """Tell of which messages the time is when the price was received, as the provider gave none."""
    headers = cast(list[Headers], headers_of(messages))
    try:
        versions, precisions = list(map(itemgetter(0), headers)), list(map(itemgetter(1), headers))
    except (IndexError, TypeError) as error:
        raise UnusualError("headers") from error
    if versions.count(_VERSION) != len(headers) or not _PRECISIONS.issuperset(precisions):
        raise UnusualError("headers")
    return np.fromiter(map(_UNKNOWN.__eq__, precisions), dtype=np.bool_, count=len(precisions))


@lru_cache(maxsize=50_000)
def _symbol(key: bytes) -> str:
    symbol = key.decode()
    if not is_symbol(symbol):
        raise UnusualError("symbol")
    return symbol


def _lengths(texts: Sequence[bytes]) -> Places:
    return np.fromiter(map(len, texts), dtype=np.intp, count=len(texts))
