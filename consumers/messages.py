"""A message as it came from Kafka, in the service's own types."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, cast

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from prices.events import Headers

UNREADABLE_HEADERS = "the name of a header is no UTF-8"

# Stands in a message for headers that cannot be read.
_UNREADABLE: list[tuple[str, str | bytes | None]] = []

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_MS = (datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)


class ReceivedMessage(NamedTuple):
    """One message of the topic, and where it stood. Headers are None where they cannot be read."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers | None
    broker_time: datetime


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


def headers_of(messages: Sequence[Message]) -> list[Headers | None]:
    """Give each message's headers; None where the name of one is no UTF-8."""
    found: list[Headers | None] = []
    # Called by `map`, whose C sees that confluent-kafka gives a list and sets an exception, too: Python's own
    # calls, once they are warm, go on with the list, and the exception comes up anywhere.
    left = cast(Iterator[Headers | None], map(Message.headers, messages))
    while len(found) < len(messages):
        try:
            # One by one, so that the place of the one that fails is known.
            for headers in left:
                found.append(None if headers is _UNREADABLE else headers or ())  # noqa: PERF401
        except (SystemError, UnicodeDecodeError):
            # So confluent-kafka fails, once: the next time it gives a list with a hole, and whoever touches
            # that hole ends the process.
            messages[len(found)].set_headers(_UNREADABLE)
            found.append(None)
    return found


def _broker_time(kind: int, milliseconds: int) -> datetime:
    if kind == TIMESTAMP_NOT_AVAILABLE:
        # A fixed time: read again, the message becomes the same dead letter.
        return _EPOCH
    # A producer may have written any number.
    return _EPOCH + timedelta(milliseconds=min(max(milliseconds, 0), LAST_MS))
