"""Offsets reach Kafka without being waited for, and never for a partition of another consumer."""

from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from django.conf import settings

from consumers.offsets import OffsetCommitter
from tests.consumers.running import committed
from tests.waiting import wait_until

REFUSED = KafkaError(KafkaError.REBALANCE_IN_PROGRESS)


@pytest.fixture
def offsets(topic: str) -> OffsetCommitter:
    made = OffsetCommitter(topic)
    made.own([0, 1])
    return made


@pytest.fixture
def consumer(topic: str, offsets: OffsetCommitter) -> Iterator[Consumer]:
    made = Consumer(
        {
            "bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS,
            "group.id": topic,
            "on_commit": offsets.on_commit,
        }
    )
    yield made
    made.close()


def message(partition: int, offset: int) -> Message:
    return Message(topic="t", partition=partition, offset=offset)


def test_next_offset_of_each_partition_is_committed(offsets: OffsetCommitter, consumer: Consumer) -> None:
    offsets.note_stored([message(0, 4), message(1, 8), message(0, 5)])
    offsets.commit_if_due(consumer)
    wait_until(lambda: committed() == {0: 6, 1: 9, 2: -1001})


def test_commits_are_apart(offsets: OffsetCommitter, consumer: Consumer) -> None:
    offsets.note_stored([message(0, 4)])
    offsets.commit_if_due(consumer)
    offsets.note_stored([message(0, 5)])
    offsets.commit_if_due(consumer)
    wait_until(lambda: committed([0]) == {0: 5})

    def is_committed() -> bool:
        offsets.commit_if_due(consumer)
        return committed([0]) == {0: 6}

    assert not is_committed()
    wait_until(is_committed)


def test_partition_of_another_consumer_is_not_committed(offsets: OffsetCommitter, consumer: Consumer) -> None:
    offsets.note_stored([message(0, 4), message(1, 8), message(2, 5)])
    offsets.disown([1])
    offsets.note_stored([message(1, 9)])
    offsets.commit(consumer)
    wait_until(lambda: committed() == {0: 5, 1: -1001, 2: -1001})


def test_refused_offset_is_sent_again_unless_there_is_a_newer_one(
    offsets: OffsetCommitter, consumer: Consumer, topic: str
) -> None:
    offsets.note_stored([message(1, 9)])
    refused = [TopicPartition(topic, 0, 5), TopicPartition(topic, 1, 7), TopicPartition(topic, 2, 1)]
    offsets.on_commit(REFUSED, refused)
    offsets.commit(consumer)
    wait_until(lambda: committed() == {0: 5, 1: 10, 2: -1001})
