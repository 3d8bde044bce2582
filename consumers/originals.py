"""Messages of Kafka read again by their offsets: a dead letter's headers stand nowhere else.

Without its headers a message can mean something else: they tell its version, and whether the provider
gave a time.
"""

import logging
import time
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from django.conf import settings

from consumers.messages import ReceivedMessage, received
from prices.models import DeadLetter

ANSWER_TIMEOUT_S = 5.0

_GONE = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._AUTO_OFFSET_RESET,
}
_silent = logging.getLogger("librdkafka.originals")
_silent.disabled = True


class Originals:
    """Reads single messages, as no member of the group and without a trace in its offsets."""

    def __init__(self) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS,
                "group.id": settings.KAFKA_CONSUMER_GROUP,
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                # A jump waits for the fetch before it, which waits for messages where there are none.
                "fetch.wait.max.ms": 10,
                "queued.max.messages.kbytes": 16_384,
            },
            logger=_silent,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def find(self, letter: DeadLetter) -> ReceivedMessage | None:
        """Give the message of which the letter was made; None where Kafka has it no longer.

        Another message at its offset, in a topic made anew, is not it. Raises KafkaException where Kafka
        does not answer within 5 s.
        """
        try:
            found = self._read(TopicPartition(letter.topic, letter.partition, letter.offset))
        except KafkaException as error:
            if error.args[0].code() in _GONE:
                return None
            raise
        return found if found is not None and _is_of(found, letter) else None

    def _read(self, position: TopicPartition) -> ReceivedMessage | None:
        oldest, end = self._consumer.get_watermark_offsets(position, timeout=ANSWER_TIMEOUT_S)
        if not oldest <= position.offset < end:
            return None
        self._consumer.assign([position])
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while (message := self._consumer.poll(0.1)) is None:
            if time.monotonic() > deadline:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        error = message.error()
        if error is not None:
            raise KafkaException(error)
        return received(message)


def _is_of(found: ReceivedMessage, letter: DeadLetter) -> bool:
    return (found.offset, found.broker_time, found.key, found.value) == (
        letter.offset,
        letter.message_timestamp,
        None if letter.key is None else bytes(letter.key),
        None if letter.value is None else bytes(letter.value),
    )
