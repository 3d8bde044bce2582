"""Offsets reach Kafka without being waited for, and never for a partition of another consumer."""

from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from django.conf import settings

from consumers.reading.offsets import OffsetCommitter
from tests.consumers.running import committed
from tests.waiting import wait_until

REFUSED = KafkaError(KafkaError.REBALANCE_IN_PROGRESS)


@pytest.fixture
def offsets(topic: str) -> OffsetCommitter:
    made = OffsetCommitter(topic)
    made.assign([TopicPartition(topic, 0, 0), TopicPartition(topic, 1, 0)], uncommitted=[0, 1])
    return made


@pytest.fixture
def consumer(topic: str, offsets: OffsetCommitter) -> Iterator[Consumer]:
    made = Consumer(
        {
            "bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS,
            "group.id": topic,
            "on_commit": offsets.on_commit,
            "log_level": 0,
        }
    )
    yield made
    made.close()


def test_next_offset_of_each_partition_is_committed(offsets: OffsetCommitter, consumer: Consumer) -> None:
    offsets.mark_stored({0: 6, 1: 9})
    offsets.commit_if_due(consumer)
    wait_until(lambda: committed() == {0: 6, 1: 9, 2: -1001})


def test_commits_are_apart(
    offsets: OffsetCommitter, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    offsets.mark_stored({0: 5})
    offsets.commit_if_due(consumer)
    monkeypatch.setattr("consumers.reading.offsets.COMMIT_INTERVAL_S", 3600.0)
    wait_until(lambda: committed([0]) == {0: 5})
    offsets.mark_stored({0: 6})
    offsets.commit_if_due(consumer)
    assert committed([0]) == {0: 5}
    monkeypatch.setattr("consumers.reading.offsets.COMMIT_INTERVAL_S", 0.0)
    offsets.commit_if_due(consumer)
    wait_until(lambda: committed([0]) == {0: 6})


def test_beginning_is_committed_only_where_the_group_has_it(
    offsets: OffsetCommitter, consumer: Consumer, topic: str
) -> None:
    """A partition that nobody has read stays so until something of it is stored."""
    offsets.assign([TopicPartition(topic, 2, 7)])
    offsets.commit(consumer)
    wait_until(lambda: committed() == {0: -1001, 1: -1001, 2: 7})
    assert [(each.partition, each.offset) for each in offsets.positions] == [(0, 0), (1, 0), (2, 7)]


def test_partition_of_another_consumer_is_not_committed(offsets: OffsetCommitter, consumer: Consumer) -> None:
    offsets.mark_stored({0: 5, 1: 9, 2: 6})
    offsets.revoke([1])
    offsets.mark_stored({1: 10})
    offsets.commit(consumer)
    wait_until(lambda: committed() == {0: 5, 1: -1001, 2: -1001})


def test_refused_offset_is_sent_again(offsets: OffsetCommitter, consumer: Consumer, topic: str) -> None:
    offsets.mark_stored({0: 5, 1: 10})
    offsets.commit(consumer)
    wait_until(lambda: committed([0, 1]) == {0: 5, 1: 10})
    set_back(consumer, topic)
    offsets.on_commit(REFUSED, [TopicPartition(topic, 1, 10), TopicPartition(topic, 2, 1)])
    offsets.commit(consumer)
    wait_until(lambda: committed() == {0: 1, 1: 10, 2: -1001})


def test_refusal_of_an_older_offset_sends_nothing_again(
    offsets: OffsetCommitter, consumer: Consumer, topic: str
) -> None:
    offsets.mark_stored({0: 5, 1: 10})
    offsets.commit(consumer)
    wait_until(lambda: committed([0, 1]) == {0: 5, 1: 10})
    set_back(consumer, topic)
    offsets.on_commit(REFUSED, [TopicPartition(topic, 0, 3)])
    offsets.mark_stored({1: 11})
    offsets.commit(consumer)
    wait_until(lambda: committed([0, 1]) == {0: 1, 1: 11})


def test_offset_set_back_by_a_late_commit_of_another_is_set_right(
    offsets: OffsetCommitter, consumer: Consumer, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.reading.offsets.REPEAT_INTERVAL_S", 0.3)
    # One partition was only begun, where the group had been.
    offsets.assign([TopicPartition(topic, 2, 7)])
    offsets.mark_stored({0: 5})
    offsets.commit(consumer)
    wait_until(lambda: committed([0, 2]) == {0: 5, 2: 7})
    set_back(consumer, topic)

    def is_right() -> bool:
        offsets.commit_if_due(consumer)
        return committed() == {0: 5, 1: -1001, 2: 7}

    wait_until(is_right)


def set_back(consumer: Consumer, topic: str) -> None:
    """Commit what a former owner of the partitions had stored."""
    former = [position for position in consumer.committed(all_of(topic), timeout=10) if position.offset > 0]
    for position in former:
        position.offset = 1
    consumer.commit(offsets=former, asynchronous=False)


def all_of(topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in range(3)]
