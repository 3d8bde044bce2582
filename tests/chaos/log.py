"""What Kafka's log holds in the end: the truth about what was sent."""

from typing import TypeAlias

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition
from django.conf import settings

Position: TypeAlias = tuple[int, int]  # partition and offset
Content: TypeAlias = tuple[bytes | None, bytes | None]  # key and value
TIMEOUT_S = 30.0


def read_log() -> dict[Position, Content]:
    """Return every message of KAFKA_TOPIC. Raises AssertionError where Kafka does not give them in 30 s."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS,
            "group.id": "chaos-reader",
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )
    try:
        return _read(consumer)
    finally:
        consumer.close()


def _read(consumer: Consumer) -> dict[Position, Content]:
    topic = settings.KAFKA_TOPIC
    numbers = consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic].partitions
    partitions = [TopicPartition(topic, number, OFFSET_BEGINNING) for number in numbers]
    ends = [consumer.get_watermark_offsets(each, timeout=TIMEOUT_S) for each in partitions]
    expected = sum(end - beginning for beginning, end in ends)
    consumer.assign(partitions)
    log: dict[Position, Content] = {}
    while len(log) < expected:
        messages = consumer.consume(expected - len(log), timeout=TIMEOUT_S)
        assert messages, f"Kafka gave {len(log)} of {expected} messages"
        log |= {_position(message): (message.key(), message.value()) for message in messages}
    return log


def _position(message: Message) -> Position:
    assert message.error() is None, message.error()
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    return partition, offset
