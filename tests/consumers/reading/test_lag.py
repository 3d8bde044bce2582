"""How far the group is behind, and up to when all is consumed, by the real Kafka."""

from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import KafkaException
from django.conf import settings
from django.test import override_settings
from pytest_django import Settings

from consumers.reading import lag
from consumers.reading.lag import CLOCKS_AGREE_WITHIN, Consumed, PartitionLag, read_consumed, read_lag
from prices.publishing.kafka_clients import make_producer
from tests.consumers.running import Recorder, commit, committed, messages_left, running, send, stream, trim
from tests.kafka_topics import change_topic
from tests.waiting import wait_until

NOW = datetime(2100, 1, 1, tzinfo=UTC)
pytestmark = pytest.mark.usefixtures("topic", "heartbeats")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no consumer: none runs here."""
    monkeypatch.setattr(lag, "CATCH_UP_S", 0.0)


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


def send_transaction(end: str, *, partition: int = 0) -> None:
    """Send one message in a transaction, and end that."""
    producer = make_producer({"transactional.id": settings.KAFKA_TOPIC})
    producer.init_transactions(10)
    producer.begin_transaction()
    producer.produce(settings.KAFKA_TOPIC, value=b"x", partition=partition)
    producer.flush(10)
    if end == "commit":
        producer.commit_transaction(10)
    elif end == "abort":
        producer.abort_transaction(10)


def is_about_now(moment: datetime | None) -> bool:
    assert moment is not None
    return abs(datetime.now(UTC) - CLOCKS_AGREE_WITHIN - moment) < timedelta(seconds=60)


def test_all_is_consumed_where_nothing_was_sent() -> None:
    assert read_consumed(now=NOW) == Consumed(NOW)


def test_first_message_that_waits_bounds_it() -> None:
    send([b"1", b"2", b"3"], partition=1)
    commit(1, partition=1)
    found = read_consumed(now=NOW)
    assert is_about_now(found.until)
    assert (found.note or "").startswith("2 messages are still to be consumed: what was published after 2")


def test_end_of_a_transaction_holds_nothing_back() -> None:
    send_transaction("commit")
    commit(1, partition=0)
    wait_until(lambda: messages_left(wait_s=0) == 1)
    assert read_consumed(now=NOW) == Consumed(NOW)


@pytest.mark.parametrize("end", ["commit", "abort", "leave open"])
def test_messages_of_a_transaction_hold_back(end: str) -> None:
    send_transaction(end)
    assert is_about_now(read_consumed(now=NOW).until)


def test_offset_of_another_topic_counts_for_nothing() -> None:
    send([b"1"], partition=2)
    commit(40, partition=2)
    assert is_about_now(read_consumed(now=NOW).until)


def test_deleted_messages_are_no_longer_waited_for() -> None:
    send([b"1", b"2", b"3"], partition=0)
    commit(1, partition=0)
    trim(0, before=3)
    assert read_consumed(now=NOW) == Consumed(NOW)


def test_times_of_producers_tell_nothing() -> None:
    change_topic(settings.KAFKA_TOPIC, message_timestamp_type="CreateTime")
    send([b"1"], partition=0)
    found = read_consumed(now=NOW)
    assert found.until is None
    assert "since when is not known: the topic has no times of the broker" in (found.note or "")


def test_kafka_away_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lag, "TIMEOUT_S", 0.3)
    with override_settings(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1"):
        found = read_consumed(now=NOW)
    assert found.until is None
    assert (found.note or "").startswith("Kafka does not tell what is consumed (")
