"""How far the group is behind, by the real Kafka."""

import pytest
from confluent_kafka import KafkaException
from django.test import override_settings
from pytest_django import Settings

from consumers.reading import lag
from consumers.reading.lag import PartitionLag, read_lag
from tests.consumers.running import Recorder, commit, committed, messages_left, running, send, stream, trim
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("topic", "heartbeats")


def test_empty_topic_leaves_nothing_to_consume() -> None:
    assert messages_left(wait_s=0) == 0


def test_group_without_offsets_has_all_messages_left() -> None:
    send([b"1"] * 5, partition=0)
    send([b"1"] * 2, partition=2)
    assert messages_left(wait_s=0) == 7


def test_messages_after_the_committed_offset_are_left() -> None:
    send([b"1"] * 5, partition=0)
    with running(Recorder()) as handler:
        wait_until(lambda: len(handler.values) == 5)
    assert messages_left(wait_s=0) == 0
    send([b"1"] * 3, partition=0)
    assert messages_left(wait_s=0) == 3


def test_group_that_reads_is_waited_for() -> None:
    send([b"1"] * 5)
    with running(Recorder()):
        assert messages_left(wait_s=10) == 0


def test_group_that_reads_a_stream_has_its_position_all_along() -> None:
    """Ends that are older than the offsets would lie before them, as those of another topic do."""
    with running(Recorder()), stream() as sent:
        wait_until(lambda: sum(max(offset, 0) for offset in committed().values()) > 100)
        looks = [read_lag() for _ in range(60)]
        assert messages_left(wait_s=20) == 0
    assert len(sent) > 200
    assert [each for lags in looks for each in lags if each.is_gone] == []


def test_each_partition_tells_where_the_group_stands() -> None:
    send([b"1"] * 5, partition=0)
    send([b"1"] * 4, partition=2)
    commit(3, partition=0)
    commit(1, partition=2)
    trim(2, before=2)
    lags = read_lag()
    assert lags == [PartitionLag(0, 3, 0, 5), PartitionLag(1, None, 0, 0), PartitionLag(2, 1, 2, 4)]
    assert [each.messages for each in lags] == [2, 0, 3]
    assert [each.is_gone for each in lags] == [False, False, True]


def test_offset_of_a_former_topic_is_gone() -> None:
    send([b"1"] * 5, partition=0)
    commit(3, partition=0, metadata="topic=former")
    commit(3, partition=1, metadata="topic=")
    first, second, _third = read_lag()
    assert (first.is_gone, first.next_offset, first.messages) == (True, 0, 5)
    assert not second.is_of_former


def test_unknown_topic_raises(settings: Settings) -> None:
    settings.KAFKA_TOPIC = "no-such-topic"
    with pytest.raises(KafkaException, match="UNKNOWN_TOPIC_OR_PART"):
        messages_left(wait_s=0)


@override_settings(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
def test_kafka_away_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lag, "TIMEOUT_S", 0.3)
    with pytest.raises(KafkaException):
        messages_left(wait_s=0)
