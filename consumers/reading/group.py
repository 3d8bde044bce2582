"""The consumer group: how a process joins it, and where a partition is begun."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, cast

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from django.conf import settings

from consumers.reading.decoding import received
from consumers.reading.offsets import is_of_another_topic, topic_of
from consumers.reading.stall import STATISTICS_INTERVAL_S
from consumers.reading.topic_watch import WHAT_TO_DO, replaced_topic
from prices.publishing.kafka_clients import make_admin, make_consumer

log = structlog.get_logger(__name__)

WATERMARKS_TIMEOUT_S = 2.0
COMMITTED_TIMEOUT_S = 2.0
OLDEST_TIMEOUT_S = 5.0
# Of a message that is still to come. Not now, by this host's clock: by that one prices may be of later.
AFTER_ALL = datetime(9000, 1, 1, tzinfo=UTC)


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


class OffsetReset(StrEnum):
    """Where to begin in a partition whose position Kafka no longer has."""

    EARLIEST = "earliest"
    LATEST = "latest"


def configuration(
    *,
    on_error: Callable[[KafkaError], None],
    on_commit: Callable[[KafkaError | None, list[TopicPartition]], None],
    on_statistics: Callable[[str], None],
) -> dict[str, Any]:
    """Return the settings of a consumer that commits by itself and never skips a message."""
    return _PROTOCOLS[settings.KAFKA_GROUP_PROTOCOL] | {
        # A rebalance waits so long for a member.
        "max.poll.interval.ms": 60_000,
        "auto.offset.reset": "error",
        # What stands at the end of a partition may be no message.
        "enable.partition.eof": True,
        # librdkafka rests for a second once its queue is full, and for up to ten after an outage; a topic
        # or a partition that is new it sees after five minutes.
        "fetch.queue.backoff.ms": 5,
        # Ten reads ahead; by default it would be a hundred, and 64 MB.
        "queued.max.messages.kbytes": 4_096,
        "queued.min.messages": 10_000,
        "reconnect.backoff.max.ms": 1_000,
        "topic.metadata.refresh.interval.ms": 10_000,
        "statistics.interval.ms": int(STATISTICS_INTERVAL_S * 1000),
        "error_cb": on_error,
        "on_commit": on_commit,
        "stats_cb": on_statistics,
    }


class UnreadBecause(StrEnum):
    """Why a message before the position may have been read by nobody."""

    # Kafka has deleted messages that the group never read.
    TRIMMED = "trimmed"
    # The position was not committed by a consumer: an operator has set it, or `--from` has.
    MOVED = "moved"
    # The group has no offset of the topic: it is new, or was deleted, or the topic was deleted and made anew.
    NO_OFFSETS = "no offsets"


@dataclass(frozen=True, slots=True)
class Start:
    """Where a partition is to be read from; `is_new` where the group has no offset of it in Kafka."""

    position: TopicPartition
    is_new: bool = False
    gap: UnreadBecause | None = None


def starting_positions(
    consumer: Consumer, partitions: Sequence[TopicPartition], *, topic_id: str, reset: OffsetReset | None
) -> list[Start]:
    """Return where each partition is to be read from: its committed offset, or that of its oldest message.

    With `auto.offset.reset=error` Kafka would refuse both a partition that the group has never
    committed and one whose committed offset is gone; only the second is an error, unless `reset` says
    where to begin then. An offset that was committed in a topic of another id is gone, too. Raises
    TopicReplacedError for such a one without `reset`, and KafkaException where Kafka does not tell the
    offsets within 2 s.
    """
    if not partitions:
        return []
    committed = _committed(consumer, partitions)
    has_offsets = any(position.offset >= 0 for position in committed) or _has_offsets(consumer)
    return [
        _new_start(consumer, position, has_offsets=has_offsets, reset=reset)
        if position.offset < 0
        else _start(consumer, position, topic_id=topic_id, reset=reset)
        for position in committed
    ]


def _committed(consumer: Consumer, partitions: Sequence[TopicPartition]) -> list[TopicPartition]:
    positions = consumer.committed(list(partitions), timeout=COMMITTED_TIMEOUT_S)
    for position in positions:
        if position.error is not None:
            raise KafkaException(position.error)
    return positions


def _has_offsets(consumer: Consumer) -> bool:
    """Return whether the group has an offset of any partition: those that are another member's, too."""
    topic = settings.KAFKA_TOPIC
    # Not by the consumer itself: within its callbacks confluent-kafka 2.16 forgets there who calls, and ends
    # the process at the next callback of the same `consume`.
    numbers = make_admin().list_topics(topic, timeout=COMMITTED_TIMEOUT_S).topics[topic].partitions
    positions = _committed(consumer, [TopicPartition(topic, number) for number in numbers])
    return any(position.offset >= 0 for position in positions)


def _new_start(
    consumer: Consumer, position: TopicPartition, *, has_offsets: bool, reset: OffsetReset | None
) -> Start:
    # As a number: librdkafka would look a "beginning" up later, and again after each seek.
    position.offset, _end = consumer.get_watermark_offsets(position, timeout=WATERMARKS_TIMEOUT_S)
    gap = None
    if position.offset > 0:
        gap = UnreadBecause.TRIMMED if reset is None else UnreadBecause.MOVED
    elif not has_offsets:
        gap = UnreadBecause.NO_OFFSETS
    return Start(position, is_new=True, gap=gap)


def _start(
    consumer: Consumer, position: TopicPartition, *, topic_id: str, reset: OffsetReset | None
) -> Start:
    is_moved = topic_of(position) is None and position.offset > 0
    if reset is not None:
        is_moved |= _move_where_gone(consumer, position, topic_id=topic_id, reset=reset)
    elif is_of_another_topic(position, topic_id):
        raise replaced_topic(topic_of(position) or "", topic_id)
    return Start(position, gap=UnreadBecause.MOVED if is_moved else None)


def _move_where_gone(
    consumer: Consumer, position: TopicPartition, *, topic_id: str, reset: OffsetReset
) -> bool:
    oldest, end = consumer.get_watermark_offsets(position, timeout=WATERMARKS_TIMEOUT_S)
    if oldest <= position.offset <= end and not is_of_another_topic(position, topic_id):
        return False
    former, position.offset = position.offset, oldest if reset is OffsetReset.EARLIEST else end
    log.warning("partition.begun_anew", partition=position.partition, was=former, now=position.offset)
    return True


def oldest_time(positions: Sequence[TopicPartition]) -> datetime:
    """Return the time of the last of these partitions' messages at these offsets.

    AFTER_ALL, where one has none. Raises KafkaException where Kafka does not answer within 5 s.
    """
    consumer = make_consumer({"auto.offset.reset": "error", "enable.partition.eof": True})
    deadline = time.monotonic() + OLDEST_TIMEOUT_S
    times: dict[int, datetime] = {}
    try:
        consumer.assign(list(positions))
        while len(times) < len(positions):
            message = consumer.poll(max(deadline - time.monotonic(), 0.0))
            if message is None:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            error = message.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
            found = AFTER_ALL if error is not None else received(message).broker_time
            times.setdefault(cast(int, message.partition()), found)
    finally:
        consumer.close()
    return max(times.values())


def unread_log(positions: Sequence[TopicPartition]) -> LogTrimmedError:
    """Return the error for partitions that the group never read, and whose first messages are gone."""
    group, topic = settings.KAFKA_CONSUMER_GROUP, settings.KAFKA_TOPIC
    begins = ", ".join(f"{each.partition} at {each.offset}" for each in positions)
    return LogTrimmedError(
        f"The consumer group {group} has no offsets of these partitions of {topic}, and Kafka no longer has"
        f" their first messages (partition and oldest offset: {begins}): messages were deleted before they"
        " were consumed, or the group is not the one it was. price_points does not reach back to them, so"
        f" going on would leave them out silently. {WHAT_TO_DO}"
    )


def trimmed_log(consumer: Consumer, position: TopicPartition) -> LogTrimmedError:
    """Return the error for a partition whose position Kafka does not have."""
    try:
        oldest, end = consumer.get_watermark_offsets(position, timeout=WATERMARKS_TIMEOUT_S)
        there = f"Kafka has only offsets {oldest} to {end}"
    except KafkaException:
        # It has just said that this one is not among them.
        there = "Kafka no longer has it"
    group, topic = settings.KAFKA_CONSUMER_GROUP, settings.KAFKA_TOPIC
    return LogTrimmedError(
        f"The consumer group {group} has to go on at offset {position.offset} of {topic},"
        f" partition {position.partition}, but {there}: messages were deleted before they were consumed, or"
        f" the topic is not the one it was. Going on would leave them out silently. {WHAT_TO_DO}"
    )


def position_of(message: Message) -> TopicPartition:
    """Return where a message, or an error in its place, stands."""
    return TopicPartition(
        cast(str, message.topic()), cast(int, message.partition()), cast(int, message.offset())
    )


# What passes by itself: Kafka or a broker is away, or a partition or the group is on its way to another one.
_PASSING = {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._TRANSPORT,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._WAIT_COORD,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.FENCED_MEMBER_EPOCH,
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.KAFKA_STORAGE_ERROR,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.NOT_COORDINATOR,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.STALE_MEMBER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.UNKNOWN_MEMBER_ID,
    # Also of a topic that was made just now, by a broker that has not heard of it yet.
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNSTABLE_OFFSET_COMMIT,
}


def is_passing(error: KafkaError) -> bool:
    """Return whether the same question may be answered a moment later."""
    return error.code() in _PASSING


def is_final(error: KafkaError) -> bool:
    """Return whether librdkafka has ended the client that this comes from: it does nothing any more."""
    return error.fatal() or error.code() == KafkaError._FATAL


def numbers_of(partitions: Sequence[TopicPartition]) -> list[int]:
    """Return the partitions' numbers, in order."""
    return sorted(partition.partition for partition in partitions)
