"""Where the consumer group stands: where a partition is begun, and what nobody has read of what is before.

The handler stores what it knows of such messages before anything else is written. That may take longer than
Kafka waits for a member of the group, so it is done in a thread, while the loop serves rebalances: a member
that was put out meanwhile would find the same partitions, and begin anew, each time.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Any, cast

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from django.conf import settings

from consumers.reading.decoding import received
from consumers.reading.offsets import is_of_another_topic, topic_of
from consumers.reading.pipeline import BatchHandler, run_in_thread
from consumers.reading.watches import WHAT_TO_DO, replaced_topic
from prices.publishing.kafka_clients import make_admin, make_consumer

log = structlog.get_logger(__name__)

WATERMARKS_TIMEOUT_S = 2.0
COMMITTED_TIMEOUT_S = 2.0
OLDEST_TIMEOUT_S = 5.0
# The handler asks so often whether it is to stop, or it hangs.
RECOVERY_OVERDUE_S = 150.0
# Of a message that is still to come. Not now, by this host's clock: by that one prices may be of later.
AFTER_ALL = datetime(9000, 1, 1, tzinfo=UTC)


class LogTrimmedError(Exception):
    """Kafka no longer has what the group has to read next; the text says what to do."""


class OffsetReset(StrEnum):
    """Where to begin in a partition whose position Kafka no longer has."""

    EARLIEST = "earliest"
    LATEST = "latest"


class UnreadBecause(StrEnum):
    """Why a message before the position may have been read by nobody; the value is its event in the log."""

    # Kafka has deleted messages that the group never read.
    TRIMMED = "log.trimmed"
    # The position was not committed by a consumer: an operator has set it, or `--from` has.
    MOVED = "offsets.moved"
    # The group has no offset of the topic: it is new, or was deleted, or the topic was deleted and made anew.
    NO_OFFSETS = "offsets.missing"


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


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was done about a gap: the positions behind it, and how many rows were added; None: not known."""

    gap: UnreadBecause
    positions: Sequence[TopicPartition]
    rows: int | None


class GapRecovery:
    """The partitions of which nobody may have read what is before, until that is made good."""

    def __init__(self, handler: BatchHandler[Any], *, is_stopped: Callable[[], bool]) -> None:
        self._handler = handler
        self._is_stopped = is_stopped
        self._gaps: dict[int, Start] = {}
        self._under_way: tuple[Mapping[int, Start], Future[int | None]] | None = None
        self._asked_at = 0.0

    @property
    def is_needed(self) -> bool:
        """Return whether nothing may be written yet."""
        return bool(self._gaps) or self._under_way is not None

    @property
    def is_overdue(self) -> bool:
        """Return whether the handler has given no sign of life for long."""
        return self._under_way is not None and time.monotonic() - self._asked_at > RECOVERY_OVERDUE_S

    def add(self, starts: Iterable[Start]) -> None:
        """Take note of partitions that are to be begun; most have no gap."""
        self._gaps |= {start.position.partition: start for start in starts if start.gap}

    def drop(self, partitions: Iterable[int]) -> None:
        """Leave partitions to whoever has them now."""
        for partition in partitions:
            self._gaps.pop(partition, None)

    def step(self) -> list[Recovered] | None:
        """Begin the recovery, or look after it; return what was done once it has ended, else None.

        Raises RetryLaterError where it has to be begun again later, LogTrimmedError where nobody knows what
        the messages were, and KafkaException where Kafka does not tell of which time they are.
        """
        if self._under_way is None:
            self._under_way = dict(self._gaps), self._begin()
        gaps, future = self._under_way
        if not future.done():
            return None
        self._under_way = None
        rows = future.result()
        ours = {number: start for number, start in gaps.items() if self._gaps.get(number) is start}
        by_gap = _by_gap(ours)
        if rows is None and by_gap[UnreadBecause.TRIMMED]:
            raise _unread_log(by_gap[UnreadBecause.TRIMMED])
        self.drop(ours)
        if rows is None and not _by_gap(gaps)[UnreadBecause.MOVED]:
            # The first start of all.
            return []
        return [Recovered(gap, positions, rows) for gap, positions in by_gap.items() if positions]

    def close(self, *, timeout_s: float) -> None:
        """Wait a while for a recovery that is under way: it ends soon once the loop is stopped."""
        if self._under_way is not None:
            wait([self._under_way[1]], timeout=timeout_s)

    def _begin(self) -> Future[int | None]:
        by_gap = _by_gap(self._gaps)
        trimmed = by_gap[UnreadBecause.TRIMMED]
        self._asked_at = time.monotonic()
        recover = partial(
            self._handler.recover,
            before=oldest_time(trimmed) if trimmed else AFTER_ALL,
            is_first=not trimmed and not by_gap[UnreadBecause.MOVED],
            is_stopped=self._answer_whether_stopped,
        )
        return run_in_thread(recover, name="recovery")

    def _answer_whether_stopped(self) -> bool:
        self._asked_at = time.monotonic()
        return self._is_stopped()


def _by_gap(starts: Mapping[int, Start]) -> dict[UnreadBecause, list[TopicPartition]]:
    return {gap: [each.position for each in starts.values() if each.gap is gap] for gap in UnreadBecause}


def _unread_log(positions: Sequence[TopicPartition]) -> LogTrimmedError:
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


def numbers_of(partitions: Sequence[TopicPartition]) -> list[int]:
    """Return the partitions' numbers, in order."""
    return sorted(partition.partition for partition in partitions)
