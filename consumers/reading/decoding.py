"""Messages into columns of events, and into dead letters where they are none.

Messages are read many at once, for speed. Those that are unusual are left to `decode_event`, which alone says
what a price event is: both must agree, and a test holds them to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import compress
from typing import NamedTuple, TypeAlias, cast

import numpy as np
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message
from django.conf import settings

from consumers.averages.columns import Events, columns_of, concatenate
from consumers.averages.rows import Rows, concatenate_rows, rows_of
from consumers.reading.event_parser import LAST_MS, are_canonical, headers_of, parse_batch
from prices.database.uuid7 import EPOCH
from prices.models import DeadLetter
from prices.publishing.events import EventError, Headers, PriceEvent, decode_event

UNREADABLE_HEADERS = "the name of a header is no UTF-8"
# As dead_letters keeps headers: a list of names and values, in bytes.
StoredHeaders: TypeAlias = Sequence[Sequence[bytes | memoryview | None]]


class ReceivedMessage(NamedTuple):
    """One message of the topic, and where it stood. Headers are None where they cannot be read."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers | None
    broker_time: datetime


@dataclass(frozen=True, slots=True)
class Decoded:
    """What messages say: their events with the events' rows, and what is none, as unsaved dead letters."""

    events: Events
    rows: Rows
    dead_letters: list[DeadLetter]

    @property
    def size_bytes(self) -> int:
        """Return the size of the dead letters: they hold whole messages, which may be large."""
        return sum(
            len(each.key or b"") + len(each.value or b"") + _size_of(each.headers)
            for each in self.dead_letters
        )


def decode_messages(messages: Sequence[Message]) -> Decoded:
    """Tell the price events from the messages that are none."""
    if not messages:
        return _decode_mixed([], [])
    try:
        found = parse_batch(messages)
    except ValueError:
        return _decode_mixed(messages, are_canonical(messages))
    return Decoded(found, rows_of(found), [])


def _decode_mixed(messages: Sequence[Message], canonical: Sequence[bool]) -> Decoded:
    """Read those at once that can be, and the others one by one."""
    at_once = list(compress(messages, canonical))
    try:
        parts = [parse_batch(at_once)] if at_once else []
    except ValueError:
        return _decode_mixed(messages, [False] * len(messages))
    singly = {
        index: _decode_one(received(message))
        for index, message in enumerate(messages)
        if not canonical[index]
    }
    events = {index: each for index, each in singly.items() if isinstance(each, PriceEvent)}
    indices = [*compress(range(len(messages)), canonical), *events]
    in_order = concatenate([*parts, columns_of(events.values())]).take(np.argsort(indices))
    letters = [each for each in singly.values() if isinstance(each, DeadLetter)]
    return Decoded(in_order, rows_of(in_order), letters)


def join(parts: Sequence[Decoded]) -> Decoded:
    """Return what several runs of messages say, in their order."""
    if len(parts) == 1:
        return parts[0]
    return Decoded(
        concatenate([part.events for part in parts]),
        concatenate_rows([part.rows for part in parts]),
        [letter for part in parts for letter in part.dead_letters],
    )


def received(message: Message) -> ReceivedMessage:
    """Read a message of confluent-kafka that is no error."""
    return ReceivedMessage(
        topic=cast(str, message.topic()),
        partition=cast(int, message.partition()),
        offset=cast(int, message.offset()),
        key=message.key(),
        value=message.value(),
        headers=headers_of([message])[0],
        broker_time=_broker_time(*message.timestamp()),
    )


def _broker_time(kind: int, milliseconds: int) -> datetime:
    if kind == TIMESTAMP_NOT_AVAILABLE:
        # A fixed time: read again, the message becomes the same dead letter.
        return EPOCH
    # A producer may have written any number.
    return EPOCH + timedelta(milliseconds=min(max(milliseconds, 0), LAST_MS))


def _decode_one(message: ReceivedMessage) -> PriceEvent | DeadLetter:
    if message.headers is None:
        return _dead_letter(message, reason=UNREADABLE_HEADERS)
    try:
        return decode_event(
            message.key, message.value, headers=message.headers, broker_time=message.broker_time
        )
    except EventError as error:
        return _dead_letter(message, reason=str(error))


def _dead_letter(message: ReceivedMessage, *, reason: str) -> DeadLetter:
    return DeadLetter(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        message_timestamp=message.broker_time,
        group=settings.KAFKA_CONSUMER_GROUP,
        key=message.key,
        value=message.value,
        headers=_to_stored(message.headers),
        reason=reason,
    )


def _to_stored(headers: Headers | None) -> list[list[bytes | memoryview | None]] | None:
    """Return the headers in their order, repeated names too; None where they could not be read."""
    if headers is None:
        return None
    return [[name.encode(), value.encode() if isinstance(value, str) else value] for name, value in headers]


def from_stored(stored: StoredHeaders) -> list[tuple[str, str | bytes | None]]:
    """Return the headers as a producer takes them.

    Raises UnicodeDecodeError where a name is no UTF-8: the Kafka client can send no such name.
    """
    return [(bytes(name or b"").decode(), None if value is None else bytes(value)) for name, value in stored]


def _size_of(stored: StoredHeaders | None) -> int:
    """Return how many bytes the names and values have."""
    return sum(len(part) for pair in stored or () for part in pair if part is not None)
