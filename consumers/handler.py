"""From messages to rows: events are averaged and stored, what cannot be read becomes a dead letter."""

from collections.abc import Sequence

import structlog
from django.conf import settings

from consumers.loop import NotNowError
from consumers.messages import ReceivedMessage
from consumers.store import AverageStore, StoreUnavailableError
from prices.events import EventError, PriceEvent, decode_event
from prices.models import DeadLetter

log = structlog.get_logger(__name__)


class AverageHandler:
    """Gives the loop's batches to the store."""

    def __init__(self, store: AverageStore) -> None:
        self._store = store

    def write(self, messages: Sequence[ReceivedMessage]) -> None:
        """Store what the messages say. Raises NotNowError where the store cannot take it yet."""
        events, dead_letters = read_messages(messages)
        try:
            self._store.write(events, dead_letters)
        except StoreUnavailableError as error:
            raise NotNowError(str(error)) from error
        if dead_letters:
            log.warning("messages.refused", count=len(dead_letters), first_reason=dead_letters[0].reason)

    def forget(self) -> None:
        """Drop what is known of symbols that may now be another process's."""
        self._store.forget()

    def close(self) -> None:
        """Close the connection to PostgreSQL."""
        self._store.close()


def read_messages(messages: Sequence[ReceivedMessage]) -> tuple[list[PriceEvent], list[DeadLetter]]:
    """Tell the price events from the messages that are none; these come as unsaved dead letters."""
    events: list[PriceEvent] = []
    dead_letters: list[DeadLetter] = []
    for message in messages:
        try:
            event = decode_event(
                message.key, message.value, headers=message.headers, broker_time=message.broker_time
            )
        except EventError as error:
            dead_letters.append(_dead_letter(message, reason=str(error)))
        else:
            events.append(event)
    return events, dead_letters


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
