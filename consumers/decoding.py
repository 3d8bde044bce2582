"""Messages into columns of events, and into dead letters where they are none.

The loop below takes what the outbox writes, and is made for speed. Whatever looks unusual is left to
`decode_event`, which alone says what a price event is: both must agree, and a test holds them to it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import cast

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message
from django.conf import settings

from consumers.columns import EPOCH, MICROSECOND, NO_TIME, Collector, Events, microseconds
from consumers.messages import LAST_MS, ReceivedMessage, received
from prices.events import MAX_AHEAD, VERSION, EventError, Headers, PriceEvent, decode_event, value_decoder
from prices.models import DeadLetter, Precision
from prices.symbols import is_symbol
from providers.base import MAX_DECIMALS

# The outbox writes these two headers first.
_VERSION = ("v", VERSION)
_PRECISION_UNKNOWN = Precision.UNKNOWN.encode()
_MAX_AHEAD_MS = MAX_AHEAD // MICROSECOND // 1000
_FIRST_TIME = microseconds(datetime.min.replace(tzinfo=UTC))
_LAST_TIME = microseconds(datetime.max.replace(tzinfo=UTC))
_PLAIN_PRICE = re.compile(rb"(\d{1,12})(?:\.(\d{1,12}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Decoded:
    """A batch of messages: its events, and what is none, as unsaved dead letters."""

    events: Events
    dead_letters: list[DeadLetter]


def decode_messages(messages: Sequence[Message]) -> Decoded:
    """Tell the price events from the messages that are none."""
    collector = Collector()
    dead_letters = []
    for message in messages:
        try:
            if not _add_plain(collector, message):
                collector.add(_decode(received(message)))
        except EventError as error:
            dead_letters.append(_dead_letter(received(message), reason=str(error)))
    return Decoded(collector.events(), dead_letters)


def _add_plain(collector: Collector, message: Message) -> bool:
    """Add the event of a message that is in every way as the outbox writes it; tell whether it is so."""
    headers = cast(Headers, message.headers() or ())
    if len(headers) < 2 or headers[0] != _VERSION or headers[1][0] != "precision":
        return False
    clock, broker_ms = message.timestamp()
    try:
        value = value_decoder.decode(message.value() or b"")
    except (ValueError, RecursionError):
        return False
    symbol, source, number = value.symbol, value.source, value.event_id.int
    price = _PLAIN_PRICE.fullmatch(value.price)
    observed = (value.timestamp - EPOCH) // MICROSECOND
    is_plain = (
        price is not None
        and message.key() == _key_of(symbol)
        and "\0" not in source
        and _FIRST_TIME <= observed <= _LAST_TIME
        and clock != TIMESTAMP_NOT_AVAILABLE
        and 0 <= broker_ms <= LAST_MS
        and number >> 80 <= broker_ms + _MAX_AHEAD_MS
        # Version 7, of the variant that has versions.
        and number >> 76 & 0xF == 7
        and number >> 62 & 0b11 == 0b10
    )
    if price is None or not is_plain:
        return False
    whole, decimals = price.groups(b"")
    units, fraction = int(whole), int(decimals.ljust(MAX_DECIMALS, b"0"))
    if not units and not fraction:
        return False
    codes = collector.codes_by_symbol
    collector.ids.append(number)
    collector.codes.append(codes.setdefault(symbol, len(codes)))
    collector.wholes.append(units)
    collector.fractions.append(fraction)
    collector.sources.append(source)
    collector.observed.append(NO_TIME if headers[1][1] == _PRECISION_UNKNOWN else observed)
    return True


@lru_cache(maxsize=50_000)
def _key_of(symbol: str) -> bytes | None:
    return symbol.encode() if is_symbol(symbol) else None


def _decode(message: ReceivedMessage) -> PriceEvent:
    return decode_event(message.key, message.value, headers=message.headers, broker_time=message.broker_time)


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
