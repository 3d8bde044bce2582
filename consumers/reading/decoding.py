"""Messages into columns of events, and into dead letters where they are none.

Messages are read many at once, for speed. Those that are unusual are left to `decode_event`, which alone says
what a price event is: both must agree, and a test holds them to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
from confluent_kafka import Message
from django.conf import settings

from consumers.averages.columns import Events, columns_of, concatenate
from consumers.averages.rows import Rows, concatenate_rows, rows_of
from consumers.reading.event_parser import are_canonical, parse_batch
from consumers.reading.messages import UNREADABLE_HEADERS, ReceivedMessage, received, size_of, to_stored
from prices.models import DeadLetter
from prices.publishing.events import EventError, PriceEvent, decode_event


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
            len(each.key or b"") + len(each.value or b"") + size_of(each.headers)
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
        headers=to_stored(message.headers),
        reason=reason,
    )
