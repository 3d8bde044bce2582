"""How far the consumer group is behind the end of the topic."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from django.conf import settings

from consumers.reading.offsets import is_of_another_topic
from consumers.reading.topic_watch import read_topic_id
from prices.publishing.kafka_clients import make_consumer

TIMEOUT_S = 5.0
ASK_AGAIN_S = 0.1

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
