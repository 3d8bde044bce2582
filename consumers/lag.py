"""How far the consumer group is behind the end of the topic."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from django.conf import settings

TIMEOUT_S = 5.0
ASK_AGAIN_S = 0.1

# A partition that is new, or that moves to another broker, has none for a moment.
_NO_LEADER = {KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE}

_silent = logging.getLogger("librdkafka.lag")
_silent.disabled = True


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """Where the group stands in a partition, in offsets; `committed` is None where it has none yet."""

    partition: int
    committed: int | None
    oldest: int
    end: int

    @property
    def messages(self) -> int:
        """How many messages the group is behind the end."""
        return max(self.end - (self.oldest if self.committed is None else self.committed), 0)

    @property
    def is_gone(self) -> bool:
        """Whether Kafka no longer has what the group has to read next."""
        return self.committed is not None and not self.oldest <= self.committed <= self.end


def read_lag() -> list[PartitionLag]:
    """Give where KAFKA_CONSUMER_GROUP stands in each partition of KAFKA_TOPIC, in their order.

    Raises KafkaException where Kafka does not answer within 5 s or has no such topic.
    """
    with _bystander() as consumer:
        return _lags(consumer, _bounds(consumer))


def messages_left(*, wait_s: float) -> int:
    """Give how many of the messages that the topic holds now the group has yet to consume.

    Waits up to `wait_s` seconds for that to be none. Raises KafkaException where Kafka does not
    answer within 5 s or has no such topic.
    """
    with _bystander() as consumer:
        bounds = _bounds(consumer)
        deadline = time.monotonic() + wait_s
        while (left := _left(consumer, bounds)) and time.monotonic() < deadline:
            time.sleep(ASK_AGAIN_S)
        return left


@contextmanager
def _bystander() -> Iterator[Consumer]:
    """Give a consumer that asks for the group's offsets and is no member of it."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS,
            "group.id": settings.KAFKA_CONSUMER_GROUP,
            "enable.auto.commit": False,
        },
        logger=_silent,
    )
    try:
        yield consumer
    finally:
        consumer.close()


def _bounds(consumer: Consumer) -> dict[int, tuple[int, int]]:
    """Give the oldest and the end offset of each partition."""
    topic = settings.KAFKA_TOPIC
    metadata = consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
    if metadata.error is not None:
        raise KafkaException(metadata.error)
    return {number: _bounds_of(consumer, TopicPartition(topic, number)) for number in metadata.partitions}


def _bounds_of(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return consumer.get_watermark_offsets(partition, timeout=TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() not in _NO_LEADER or time.monotonic() > deadline:
                raise
        time.sleep(ASK_AGAIN_S)


def _left(consumer: Consumer, bounds: dict[int, tuple[int, int]]) -> int:
    return sum(each.messages for each in _lags(consumer, bounds))


def _lags(consumer: Consumer, bounds: dict[int, tuple[int, int]]) -> list[PartitionLag]:
    partitions = [TopicPartition(settings.KAFKA_TOPIC, number) for number in sorted(bounds)]
    lags = []
    for position in consumer.committed(partitions, timeout=TIMEOUT_S):
        if position.error is not None:
            raise KafkaException(position.error)
        committed = position.offset if position.offset >= 0 else None
        lags.append(PartitionLag(position.partition, committed, *bounds[position.partition]))
    return lags
