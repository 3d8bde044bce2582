"""Messages into columns of events, and into dead letters where they are none.

What the outbox writes is read column by column, for speed. Of messages that are not all like that, each
half is tried, and at last a single one is left to `decode_event`, which alone says what a price event is:
both must agree, and a test holds them to it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import cast

import msgspec
import numpy as np
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message
from django.conf import settings

from consumers.columns import (
    MICROSECOND,
    NO_TIME,
    WHOLE,
    Events,
    Integers,
    columns_of,
    concatenate,
    halves_of_texts,
    microseconds,
)
from consumers.messages import LAST_MS, ReceivedMessage, received
from prices.events import MAX_AHEAD, VERSION, EventError, Headers, decode_event
from prices.models import DeadLetter, Precision
from prices.symbols import is_symbol
from providers.base import MAX_DECIMALS

# The outbox writes these two headers first.
_VERSION = ("v", VERSION)
_UNKNOWN = ("precision", Precision.UNKNOWN.encode())
_KNOWN = {("precision", precision.encode()) for precision in Precision}
_MAX_AHEAD_MS = MAX_AHEAD // MICROSECOND // 1000
_PRICE = re.compile(rb"(\d{1,12})(?:\.(\d{1,12}))?", re.ASCII)
_DIGITS = [b"0" * places for places in range(MAX_DECIMALS + 1)]


class _Value(msgspec.Struct, gc=False):
    """The value of a message, with nothing made of its texts yet."""

    event_id: str
    symbol: str
    price: msgspec.Raw
    timestamp: str
    source: str
    raw_response_id: str


_decoder = msgspec.json.Decoder(_Value)
_time_decoder = msgspec.json.Decoder(datetime)


class _UnusualError(ValueError):
    """One of the messages is not as the outbox writes them."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A batch of messages: its events, and what is none, as unsaved dead letters."""

    events: Events
    dead_letters: list[DeadLetter]


def decode_messages(messages: Sequence[Message]) -> Decoded:
    """Tell the price events from the messages that are none."""
    parts: list[Events] = []
    dead_letters: list[DeadLetter] = []
    # Those that come first are at the end.
    left = [messages] if messages else []
    while left:
        some = left.pop()
        try:
            parts.append(_read_columns(some))
        except (ValueError, OverflowError, RecursionError):
            if len(some) > 1:
                left += [some[len(some) // 2 :], some[: len(some) // 2]]
            else:
                _decode_one(received(some[0]), parts, dead_letters)
    return Decoded(concatenate(parts), dead_letters)


def _decode_one(message: ReceivedMessage, parts: list[Events], dead_letters: list[DeadLetter]) -> None:
    try:
        event = decode_event(
            message.key, message.value, headers=message.headers, broker_time=message.broker_time
        )
    except EventError as error:
        dead_letters.append(_dead_letter(message, reason=str(error)))
    else:
        parts.append(columns_of([event]))


def _read_columns(messages: Sequence[Message]) -> Events:
    """Give messages that are in every way as the outbox writes them as events; else raise a ValueError."""
    values = [_decoder.decode(message.value() or b"") for message in messages]
    symbols = [value.symbol for value in values]
    sources = [value.source for value in values]
    if [message.key() for message in messages] != [_key_of(symbol) for symbol in symbols]:
        raise _UnusualError("key")
    if not all(_is_source(source) for source in set(sources)):
        raise _UnusualError("source")
    halves_of_texts([value.raw_response_id for value in values])
    points = np.empty((len(values), 4), dtype=np.int64)
    points[:, :WHOLE] = halves_of_texts([value.event_id for value in values])
    _check_ids(points, messages)
    points[:, WHOLE:] = [_parts_of(value.price) for value in values]
    codes_by_symbol = {symbol: code for code, symbol in enumerate(dict.fromkeys(symbols))}
    return Events(
        symbols=list(codes_by_symbol),
        codes=np.array([codes_by_symbol[symbol] for symbol in symbols], dtype=np.intp),
        points=points,
        sources=sources,
        observed=_observed(values, messages),
    )


def _check_ids(points: Integers, messages: Sequence[Message]) -> None:
    times = [message.timestamp() for message in messages]
    broker_ms = np.array([milliseconds for _clock, milliseconds in times])
    if any(clock == TIMESTAMP_NOT_AVAILABLE for clock, _milliseconds in times):
        raise _UnusualError("timestamp")
    if broker_ms.min() < 0 or broker_ms.max() > LAST_MS:
        raise _UnusualError("timestamp")
    high, low = (points[:, half].view(np.uint64) ^ np.uint64(1 << 63) for half in (0, 1))
    is_ours = (high >> np.uint64(12) & np.uint64(0xF) == 7) & (low >> np.uint64(62) == 0b10)
    if not np.all(is_ours & ((high >> np.uint64(16)).astype(np.int64) <= broker_ms + _MAX_AHEAD_MS)):
        raise _UnusualError("event_id")


def _observed(values: Sequence[_Value], messages: Sequence[Message]) -> Integers:
    found = [message.headers() or () for message in messages]
    precisions = [_precision(cast(Headers, headers)) for headers in found]
    times = [_microseconds(value.timestamp) for value in values]
    observed = np.array(times, dtype=np.int64)
    if _UNKNOWN in precisions:
        observed[[precision == _UNKNOWN for precision in precisions]] = NO_TIME
    return observed


def _precision(headers: Headers) -> tuple[str, str | bytes | None]:
    if len(headers) < 2 or headers[0] != _VERSION or headers[1] not in _KNOWN:
        raise _UnusualError("headers")
    return headers[1]


def _parts_of(price: msgspec.Raw) -> tuple[int, int]:
    """Give a price as a whole number and 10^-12 parts."""
    found = _PRICE.fullmatch(price)
    if found is None:
        raise _UnusualError("price")
    whole, decimals = found.groups(b"")
    parts = int(whole), int(decimals + _DIGITS[MAX_DECIMALS - len(decimals)])
    if parts == (0, 0):
        raise _UnusualError("price")
    return parts


@lru_cache(maxsize=50_000)
def _key_of(symbol: str) -> bytes:
    if not is_symbol(symbol):
        raise _UnusualError("symbol")
    return symbol.encode()


@lru_cache(maxsize=50_000)
def _microseconds(timestamp: str) -> int:
    """Read a time; the same few come again and again, since providers tell whole seconds."""
    moment = _time_decoder.decode(msgspec.json.encode(timestamp))
    if moment.tzinfo is None:
        raise _UnusualError("timestamp")
    return microseconds(moment.astimezone(UTC))


def _is_source(source: str) -> bool:
    return 1 <= len(source) <= 64 and "\0" not in source


def _dead_letter(message: ReceivedMessage, *, reason: str) -> DeadLetter:
    return DeadLetter(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        message_timestamp=message.broker_time,
        group=settings.KAFKA_CONSUMER_GROUP,
        key=message.key,
        value=message.value,
        reason=reason,
    )
