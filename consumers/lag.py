"""How far the consumer group is behind the end of the topic."""

import logging
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from django.conf import settings

TIMEOUT_S = 5.0
ASK_AGAIN_S = 0.1

# A partition that is new, or that moves to another broker, has none for a moment.
_NO_LEADER = {KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE}

_silent = logging.getLogger("librdkafka.lag")
_silent.disabled = True


def messages_left(*, wait_s: float) -> int:
    """Give how many of the messages that the topic holds now the group has yet to consume.

    Waits up to `wait_s` seconds for that to be none. Raises KafkaException where Kafka does not
    answer within 5 s or has no such topic.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS,
            "group.id": settings.KAFKA_CONSUMER_GROUP,
            "enable.auto.commit": False,
        },
        logger=_silent,
    )
    try:
        bounds = _bounds(consumer)
        deadline = time.monotonic() + wait_s
        while (left := _left(consumer, bounds)) and time.monotonic() < deadline:
            time.sleep(ASK_AGAIN_S)
        return left
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
    partitions = [TopicPartition(settings.KAFKA_TOPIC, number) for number in bounds]
    left = 0
    for position in consumer.committed(partitions, timeout=TIMEOUT_S):
        if position.error is not None:
            raise KafkaException(position.error)
        oldest, end = bounds[position.partition]
        left += max(end - (position.offset if position.offset >= 0 else oldest), 0)
    return left
