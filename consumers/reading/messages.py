"""A message as it came from Kafka, in the service's own types, and its headers as dead_letters keeps them."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeAlias, cast

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from prices.publishing.events import Headers

UNREADABLE_HEADERS = "the name of a header is no UTF-8"

# Stands in a message for headers that cannot be read.
_UNREADABLE: list[tuple[str, str | bytes | None]] = []

# As dead_letters keeps headers: a list of names and values, in bytes.
StoredHeaders: TypeAlias = Sequence[Sequence[bytes | memoryview | None]]

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
    """Return each message's headers; None where the name of one is no UTF-8."""
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


def to_stored(headers: Headers | None) -> list[list[bytes | memoryview | None]] | None:
    """Return the headers in their order, repeated names too; None where they could not be read."""
    if headers is None:
        return None
    return [[name.encode(), value.encode() if isinstance(value, str) else value] for name, value in headers]


def from_stored(stored: StoredHeaders) -> list[tuple[str, str | bytes | None]]:
    """Return the headers as a producer takes them.

    Raises UnicodeDecodeError where a name is no UTF-8: the Kafka client can send no such name.
    """
    return [(bytes(name or b"").decode(), None if value is None else bytes(value)) for name, value in stored]


def size_of(stored: StoredHeaders | None) -> int:
    """Return how many bytes the names and values have."""
    return sum(len(part) for pair in stored or () for part in pair if part is not None)


def _broker_time(kind: int, milliseconds: int) -> datetime:
    if kind == TIMESTAMP_NOT_AVAILABLE:
        # A fixed time: read again, the message becomes the same dead letter.
        return _EPOCH
    # A producer may have written any number.
    return _EPOCH + timedelta(milliseconds=min(max(milliseconds, 0), LAST_MS))
