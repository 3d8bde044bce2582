"""A message as it came from Kafka, in the service's own types."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple, cast

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from prices.events import Headers

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_MS = (datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)


class ReceivedMessage(NamedTuple):
    """One message of the topic, and where it stood."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    broker_time: datetime


def received(message: Message) -> ReceivedMessage:
    """Read a message of confluent-kafka that is no error."""
    return ReceivedMessage(
        topic=cast(str, message.topic()),
        partition=cast(int, message.partition()),
        offset=cast(int, message.offset()),
        key=message.key(),
        value=message.value(),
        headers=cast(Headers, message.headers() or ()),
        broker_time=_broker_time(*message.timestamp()),
    )


def _broker_time(kind: int, milliseconds: int) -> datetime:
    if kind == TIMESTAMP_NOT_AVAILABLE:
        # A fixed time: read again, the message becomes the same dead letter.
        return _EPOCH
    # A producer may have written any number.
    return _EPOCH + timedelta(milliseconds=min(max(milliseconds, 0), LAST_MS))
