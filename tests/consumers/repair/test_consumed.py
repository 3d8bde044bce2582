"""Up to when all is consumed, by the real Kafka: what is no message holds nothing back."""

from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings
from django.test import override_settings

from consumers.reading import lag
from consumers.repair import consumed
from consumers.repair.consumed import CLOCKS_AGREE_WITHIN, Consumed, read_consumed
from prices.publishing.kafka_clients import make_producer
from tests.consumers.running import commit, messages_left, send, trim
from tests.kafka_topics import change_topic
from tests.waiting import wait_until

NOW = datetime(2100, 1, 1, tzinfo=UTC)
pytestmark = pytest.mark.usefixtures("topic")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no consumer: none runs here."""
    monkeypatch.setattr(consumed, "CATCH_UP_S", 0.0)


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
