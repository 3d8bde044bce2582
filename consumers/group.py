"""The consumer group: how a process joins it, and where a partition is begun."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, cast

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from django.conf import settings

from consumers.offsets import topic_of
from consumers.topic_watch import WHAT_TO_DO, replaced_topic

log = structlog.get_logger(__name__)

WATERMARKS_TIMEOUT_S = 2.0
COMMITTED_TIMEOUT_S = 2.0


# With both, partitions that stay where they are are read on during a rebalance.
_PROTOCOLS: dict[str, dict[str, Any]] = {
    "classic": {
        "group.protocol": "classic",
        "partition.assignment.strategy": "cooperative-sticky",
        # A killed process keeps its partitions for so long.
        "session.timeout.ms": 6_000,
        "heartbeat.interval.ms": 1_000,
    },
    # Of this one these are settings of the broker.
    "consumer": {"group.protocol": "consumer"},
}


class LogTrimmedError(Exception):
    """Kafka no longer has what the group has to read next; the text says what to do."""


class Begin(StrEnum):
    """Where to begin in a partition whose position Kafka no longer has."""

    EARLIEST = "earliest"
    LATEST = "latest"


def configuration(
    *,
    on_error: Callable[[KafkaError], None],
    on_commit: Callable[[KafkaError | None, list[TopicPartition]], None],
) -> dict[str, Any]:
    """Give the settings of a consumer that commits by itself and never skips a message."""
    return _PROTOCOLS[settings.KAFKA_GROUP_PROTOCOL] | {
        "bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS,
        "group.id": settings.KAFKA_CONSUMER_GROUP,
        # A rebalance waits so long for a member.
        "max.poll.interval.ms": 60_000,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        # librdkafka rests for a second once its queue is full, and for up to ten after an outage; a topic
        # or a partition that is new it sees after five minutes.
        "fetch.queue.backoff.ms": 5,
        # Ten reads ahead; by default it would be a hundred, and 64 MB.
        "queued.max.messages.kbytes": 4_096,
        "queued.min.messages": 10_000,
        "reconnect.backoff.max.ms": 1_000,
        "topic.metadata.refresh.interval.ms": 10_000,
        "error_cb": on_error,
        "on_commit": on_commit,
    }


def starting_positions(
    consumer: Consumer, partitions: Sequence[TopicPartition], *, topic_id: str, begin: Begin | None
) -> list[TopicPartition]:
    """Give where each partition is to be read from: its committed offset, or its oldest message.

    With `auto.offset.reset=error` Kafka would refuse both a partition that the group has never
    committed and one whose committed offset is gone; only the second is an error, unless `begin` says
    where to begin then. An offset that was committed in a topic of another id is gone, too. Raises
    TopicReplacedError for such a one without `begin`, and KafkaException where Kafka does not tell the
    offsets within 2 s.
    """
    if not partitions:
        return []
    positions = consumer.committed(list(partitions), timeout=COMMITTED_TIMEOUT_S)
    for position in positions:
        if position.error is not None:
            raise KafkaException(position.error)
        if position.offset < 0:
            position.offset = OFFSET_BEGINNING
        elif begin is not None:
            _move_where_gone(consumer, position, topic_id=topic_id, begin=begin)
        elif _is_of_another(position, topic_id):
            raise replaced_topic(topic_of(position) or "", topic_id)
    return positions


def _is_of_another(position: TopicPartition, topic_id: str) -> bool:
    """Tell whether an offset was committed in another topic; not where one of both ids is not known."""
    committed_in = topic_of(position)
    return bool(topic_id) and committed_in is not None and committed_in != topic_id


def _move_where_gone(consumer: Consumer, position: TopicPartition, *, topic_id: str, begin: Begin) -> None:
    oldest, end = consumer.get_watermark_offsets(position, timeout=WATERMARKS_TIMEOUT_S)
    if oldest <= position.offset <= end and not _is_of_another(position, topic_id):
        return
    former, position.offset = position.offset, oldest if begin is Begin.EARLIEST else end
    log.warning("partition.begun_anew", partition=position.partition, was=former, now=position.offset)


def trimmed_log(consumer: Consumer, position: TopicPartition) -> LogTrimmedError:
    """Give the error for a partition whose position Kafka does not have."""
    oldest, end = consumer.get_watermark_offsets(position, timeout=WATERMARKS_TIMEOUT_S)
    group, topic = settings.KAFKA_CONSUMER_GROUP, settings.KAFKA_TOPIC
    return LogTrimmedError(
        f"The consumer group {group} has to go on at offset {position.offset} of {topic},"
        f" partition {position.partition}, but Kafka has only offsets {oldest} to {end}: messages were"
        " deleted before they were consumed, or the topic is not the one it was. Going on would leave them"
        f" out silently. {WHAT_TO_DO}"
    )


def position_of(message: Message) -> TopicPartition:
    """Give where a message, or an error in its place, stands."""
    return TopicPartition(
        cast(str, message.topic()), cast(int, message.partition()), cast(int, message.offset())
    )


def numbers_of(partitions: Sequence[TopicPartition]) -> list[int]:
    """Give the partitions' numbers, in order."""
    return sorted(partition.partition for partition in partitions)
