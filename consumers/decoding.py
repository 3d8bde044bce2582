"""Messages into columns of events, and into dead letters where they are none.

What the outbox writes is read many messages at once, for speed. Of messages that are not all like that, each
half is tried, and at last a single one is left to `decode_event`, which alone says what a price event is:
both must agree, and a test holds them to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from confluent_kafka import Message
from django.conf import settings

from consumers.columns import Events, Flags, Places, columns_of, concatenate
from consumers.messages import UNREADABLE_HEADERS, ReceivedMessage, received
from consumers.outbox_form import read_events
from consumers.rows import Rows, concatenate_rows, rows_of
from prices.events import EventError, PriceEvent, decode_event
from prices.models import DeadLetter


@dataclass(frozen=True, slots=True)
class Decoded:
    """What messages say: their events, and what is none, as unsaved dead letters.

    messages            how many there were
    rows                the events' rows
    event_places        of each event, the place of its message among them
    dead_letter_places  the same of each dead letter
    """

    messages: int
    events: Events
    rows: Rows
    event_places: Places
    dead_letters: list[DeadLetter]
    dead_letter_places: Places

    @property
    def size_bytes(self) -> int:
        """Give the size of the dead letters: they hold whole messages, which may be large."""
        return sum(len(each.key or b"") + len(each.value or b"") for each in self.dead_letters)

    def select(self, messages: Flags) -> Self:
        """Give what those messages alone say that are marked."""
        has_event, is_dead = messages[self.event_places], messages[self.dead_letter_places]
        new_places = np.cumsum(messages) - 1
        return type(self)(
            messages=int(np.count_nonzero(messages)),
            events=self.events.select(has_event),
            rows=self.rows.select(has_event),
            event_places=new_places[self.event_places[has_event]],
            dead_letters=[self.dead_letters[place] for place in np.flatnonzero(is_dead)],
            dead_letter_places=new_places[self.dead_letter_places[is_dead]],
        )


def decode_messages(messages: Sequence[Message]) -> Decoded:
    """Tell the price events from the messages that are none."""
    parts: list[Events] = []
    events: list[int] = []
    dead_letters: dict[int, DeadLetter] = {}
    # Those that come first are at the end.
    left = [range(len(messages))] if messages else []
    while left:
        rows = left.pop()
        try:
            parts.append(read_events(messages[rows.start : rows.stop]))
        except ValueError:
            if len(rows) > 1:
                middle = len(rows) // 2
                left += [rows[middle:], rows[:middle]]
                continue
            decoded = _decode_one(received(messages[rows.start]))
            if isinstance(decoded, DeadLetter):
                dead_letters[rows.start] = decoded
                continue
            parts.append(columns_of([decoded]))
        events += rows
    found = concatenate(parts)
    return Decoded(
        messages=len(messages),
        events=found,
        rows=rows_of(found),
        event_places=np.array(events, dtype=np.intp),
        dead_letters=list(dead_letters.values()),
        dead_letter_places=np.array(list(dead_letters), dtype=np.intp),
    )


def join(parts: Sequence[Decoded]) -> Decoded:
    """Give what several runs of messages say, in their order."""
    if len(parts) == 1:
        return parts[0]
    begins = np.cumsum([0, *(part.messages for part in parts)]).tolist()
    return Decoded(
        messages=begins[-1],
        events=concatenate([part.events for part in parts]),
        rows=concatenate_rows([part.rows for part in parts]),
        event_places=_shifted([part.event_places for part in parts], begins),
        dead_letters=[letter for part in parts for letter in part.dead_letters],
        dead_letter_places=_shifted([part.dead_letter_places for part in parts], begins),
    )


def _shifted(rows: Sequence[Places], begins: Sequence[int]) -> Places:
    return np.concatenate([each + begin for each, begin in zip(rows, begins, strict=False)])


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
        reason=reason,
    )
