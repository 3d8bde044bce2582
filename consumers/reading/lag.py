"""How far the group is behind the end of the topic, and up to when all that was published is consumed.

A point is published once Kafka has confirmed its message, so a message that waits was appended no earlier
than the first of its partition that waits. What was published before the first of all that wait is consumed,
whatever partition it went to. An offset that lags behind only what is no message (the end of a transaction,
records that compaction took away) holds nothing back.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, KafkaError, KafkaException, TopicPartition
from django.conf import settings

from consumers.reading.offsets import is_of_another_topic
from consumers.reading.watches import read_topic_id
from prices.publishing.kafka_clients import make_consumer

TIMEOUT_S = 5.0
ASK_AGAIN_S = 0.1
CATCH_UP_S = 3.0
# The broker's clock and PostgreSQL's differ by no more.
CLOCKS_AGREE_WITHIN = timedelta(minutes=1)

# What is new, or moves to another broker, has no leader or coordinator for a moment.
_MOVING = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """Where the group stands in a partition, in offsets; `committed` is None where it has none yet.

    `is_of_former` tells that it was committed in a topic of this name that was deleted.
    """

    partition: int
    committed: int | None
    oldest: int
    end: int
    is_of_former: bool = False

    @property
    def next_offset(self) -> int:
        """Return the offset of what the group would read next, of what Kafka has."""
        return self.oldest if self.committed is None or self.is_gone else self.committed

    @property
    def messages(self) -> int:
        """Return how many messages the group is behind the end."""
        # An offset beyond the end is one of another topic of this name, too.
        if self.committed is None or self.is_of_former or self.committed > self.end:
            return self.end - self.oldest
        return self.end - self.committed

    @property
    def is_gone(self) -> bool:
        """Return whether Kafka no longer has what the group has to read next."""
        return self.committed is not None and (
            self.is_of_former or not self.oldest <= self.committed <= self.end
        )


@dataclass(frozen=True, slots=True)
class Consumed:
    """Points that were published at `until` or before are consumed; None, where that is not known.

    `note` says what is not known, and why.
    """

    until: datetime | None
    note: str | None = None


def read_lag() -> list[PartitionLag]:
    """Return where KAFKA_CONSUMER_GROUP stands in each partition of KAFKA_TOPIC, in their order.

    Raises KafkaException where Kafka does not answer within 5 s or has no such topic.
    """
    with _observer() as consumer:
        return _lags(consumer, topic_id=read_topic_id())


def wait_until_consumed(*, wait_s: float) -> list[PartitionLag]:
    """Return the partitions in which the group has not read what they hold now, with their present ends.

    Waits up to `wait_s` seconds for none to be left. Raises KafkaException where Kafka does not answer
    within 5 s or has no such topic.
    """
    with _observer() as consumer:
        topic_id = read_topic_id()
        lags = _lags(consumer, topic_id=topic_id)
        ends = {lag.partition: lag.end for lag in lags}
        deadline = time.monotonic() + wait_s
        while behind := [lag for lag in lags if _is_behind(lag, ends.get(lag.partition, 0))]:
            if time.monotonic() >= deadline:
                break
            time.sleep(ASK_AGAIN_S)
            lags = _lags(consumer, topic_id=topic_id)
        return [replace(lag, end=ends[lag.partition]) for lag in behind]


def _is_behind(lag: PartitionLag, end: int) -> bool:
    # By the ends of the same moment it is known whether an offset lies beyond them, by those of before not.
    return lag.oldest < end and (lag.is_gone or lag.next_offset < end)


@contextmanager
def _observer() -> Iterator[Consumer]:
    """Yield a consumer that asks for the group's offsets and is no member of it.

    Not the admin client, which knows the same in fewer calls: while a group's coordinator is being loaded,
    as after a start of Kafka, its list_consumer_group_offsets ends the process by a segmentation fault
    (confluent-kafka 2.16.1).
    """
    # What waits behind an open transaction waits, too.
    consumer = make_consumer({"isolation.level": "read_uncommitted"})
    try:
        yield consumer
    finally:
        consumer.close()


def _lags(consumer: Consumer, *, topic_id: str) -> list[PartitionLag]:
    topic = settings.KAFKA_TOPIC
    metadata = consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
    if metadata.error is not None:
        raise KafkaException(metadata.error)
    partitions = [TopicPartition(topic, number) for number in sorted(metadata.partitions)]
    # Before the ends: a group that reads on would else be beyond them.
    positions = _ask(partial(consumer.committed, partitions, timeout=TIMEOUT_S))
    return [_lag(consumer, position, topic_id=topic_id) for position in positions]


def _lag(consumer: Consumer, position: TopicPartition, *, topic_id: str) -> PartitionLag:
    if position.error is not None:
        raise KafkaException(position.error)
    oldest, end = _ask(partial(consumer.get_watermark_offsets, position, timeout=TIMEOUT_S))
    committed = position.offset if position.offset >= 0 else None
    is_of_former = committed is not None and is_of_another_topic(position, topic_id)
    return PartitionLag(position.partition, committed, oldest, end, is_of_former)


def _ask(question: Callable[[], _T]) -> _T:
    """Return the answer; asked again, for a few seconds, while what is asked about moves."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return question()
        except KafkaException as error:
            if error.args[0].code() not in _MOVING or time.monotonic() > deadline:
                raise
        time.sleep(ASK_AGAIN_S)


def read_consumed(*, now: datetime) -> Consumed:
    """Return what is consumed of all that was published until `now`, a time of PostgreSQL's clock.

    Waits up to 3 s for the group to catch up.
    """
    try:
        behind = wait_until_consumed(wait_s=CATCH_UP_S)
        waiting = _first_waiting(behind) if behind else []
    except KafkaException as error:
        return Consumed(None, f"Kafka does not tell what is consumed ({error.args[0].str()})")
    if not waiting:
        return Consumed(now)
    left = f"{sum(lag.messages for lag in behind):,} messages are still to be consumed"
    if None in waiting:
        return Consumed(None, f"{left}, and since when is not known: the topic has no times of the broker")
    until = min(each for each in waiting if each) - CLOCKS_AGREE_WITHIN
    return Consumed(
        min(until, now), f"{left}: what was published after {until:%Y-%m-%d %H:%M:%S} may be one of them"
    )


def _first_waiting(behind: Sequence[PartitionLag]) -> list[datetime | None]:
    """Return when the first message that waits in each partition was appended; None where that is not told.

    Partitions without such a message are left out.
    """
    # Transactions that are open or were aborted hold the group up, too.
    options = {
        "isolation.level": "read_uncommitted",
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
    }
    consumer = make_consumer(options)
    try:
        consumer.assign(
            [TopicPartition(settings.KAFKA_TOPIC, lag.partition, lag.next_offset) for lag in behind]
        )
        return _read_first(consumer, {lag.partition for lag in behind})
    finally:
        consumer.close()


def _read_first(consumer: Consumer, partitions: set[int]) -> list[datetime | None]:
    times: list[datetime | None] = []
    deadline = time.monotonic() + TIMEOUT_S
    while partitions:
        message = consumer.poll(0.1)
        if message is None:
            if time.monotonic() > deadline:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            continue
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            raise KafkaException(error)
        if message.partition() in partitions:
            partitions.discard(message.partition())
            if error is None:
                times.append(_append_time(*message.timestamp()))
    return times


def _append_time(kind: int, milliseconds: int) -> datetime | None:
    if kind != TIMESTAMP_LOG_APPEND_TIME:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
