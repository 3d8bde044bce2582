"""The consumer group: how a process joins it, and where a partition is begun."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from django.conf import settings

WATERMARKS_TIMEOUT_S = 2.0
COMMITTED_TIMEOUT_S = 2.0


class LogTrimmedError(Exception):
    """Kafka no longer has what the group has to read next; the text says what to do."""


def configuration(
    *,
    on_error: Callable[[KafkaError], None],
    on_commit: Callable[[KafkaError | None, list[TopicPartition]], None],
) -> dict[str, Any]:
    """Give the settings of a consumer that commits by itself and never skips a message."""
    return {
        "bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS,
        "group.id": settings.KAFKA_CONSUMER_GROUP,
        "group.protocol": "classic",
        "partition.assignment.strategy": "cooperative-sticky",
        # A killed process keeps its partitions for the first of these, a rebalance waits for the second.
        "session.timeout.ms": 6_000,
        "heartbeat.interval.ms": 1_000,
        "max.poll.interval.ms": 60_000,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        # librdkafka rests for a second once its queue is full, and for up to ten after an outage; a topic
        # or a partition that is new it sees after five minutes.
        "fetch.queue.backoff.ms": 5,
        # Four batches ahead: by default it would be twenty, and 100 MB.
        "queued.max.messages.kbytes": 8_192,
        "queued.min.messages": 20_000,
        "reconnect.backoff.max.ms": 1_000,
        "topic.metadata.refresh.interval.ms": 10_000,
        "error_cb": on_error,
        "on_commit": on_commit,
    }


def starting_positions(consumer: Consumer, partitions: Sequence[TopicPartition]) -> list[TopicPartition]:
    """Give where each partition is to be read from: its committed offset, or its oldest message.

    With `auto.offset.reset=error` Kafka would refuse both a partition that the group has never
    committed and one whose committed offset is gone; only the second is an error. Raises
    KafkaException where Kafka does not tell the offsets within 2 s.
    """
    if not partitions:
        return []
    positions = consumer.committed(list(partitions), timeout=COMMITTED_TIMEOUT_S)
    for position in positions:
        if position.error is not None:
            raise KafkaException(position.error)
        if position.offset < 0:
            position.offset = OFFSET_BEGINNING
    return positions


def trimmed_log(consumer: Consumer, position: TopicPartition) -> LogTrimmedError:
    """Give the error for a partition whose position Kafka does not have."""
    oldest, end = consumer.get_watermark_offsets(position, timeout=WATERMARKS_TIMEOUT_S)
    group, topic = settings.KAFKA_CONSUMER_GROUP, settings.KAFKA_TOPIC
    return LogTrimmedError(
        f"The consumer group {group} has to go on at offset {position.offset} of {topic},"
        f" partition {position.partition}, but Kafka has only offsets {oldest} to {end}: messages were"
        " deleted before they were consumed, or the topic is not the one it was. Going on would leave them"
        " out silently. What to do: stop every consumer of the group; begin again at the oldest message,"
        f" by another KAFKA_CONSUMER_GROUP or by `kafka-consumer-groups.sh --bootstrap-server"
        f" {settings.KAFKA_BOOTSTRAP_SERVERS} --group {group} --topic {topic} --reset-offsets"
        " --to-earliest --execute` (what is stored already does not count twice); start it, and when it"
        " has caught up send again what Kafka lost, by `manage.py republish --missing`;"
        " `manage.py verify_averages` then tells whether all is there."
    )


def position_of(message: Message) -> TopicPartition:
    """Give where a message, or an error in its place, stands."""
    return TopicPartition(
        cast(str, message.topic()), cast(int, message.partition()), cast(int, message.offset())
    )


def numbers_of(partitions: Sequence[TopicPartition]) -> list[int]:
    """Give the partitions' numbers, in order."""
    return sorted(partition.partition for partition in partitions)
