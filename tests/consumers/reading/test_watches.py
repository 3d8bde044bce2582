"""A topic is told from another one of the same name."""

import logging
from contextlib import closing
from typing import Any

import pytest
from confluent_kafka import KafkaException, Producer, TopicPartition
from pytest_django import Settings

from consumers.reading import watches
from consumers.reading.group import starting_positions
from consumers.reading.watches import TopicReplacedError, TopicWatch
from prices.publishing.kafka_clients import make_admin, make_consumer
from tests.consumers.running import make_topic_anew, topic_was_made
from tests.logged import events_logged
from tests.waiting import wait_until


@pytest.fixture
def watch(topic: str, monkeypatch: pytest.MonkeyPatch) -> TopicWatch:
    monkeypatch.setattr(watches, "LOOK_INTERVAL_S", 0.05)
    made = TopicWatch()
    # A broker may not have heard yet of a topic that was made just now.
    wait_until(lambda: is_learnt(made))
    return made


def is_learnt(watch: TopicWatch) -> bool:
    try:
        return bool(watch.learn())
    except KafkaException:
        return False


def test_topic_that_stays_keeps_its_id(watch: TopicWatch) -> None:
    first = watch.learn()
    assert first
    assert watch.learn() == first
    assert TopicWatch().learn() == first


def test_topic_made_anew_is_noticed_when_it_is_learnt_again(watch: TopicWatch) -> None:
    watch.learn()
    make_topic_anew()
    with pytest.raises(TopicReplacedError, match="deleted and made anew"):
        wait_until(lambda: not watch.learn())


def test_topic_made_anew_is_noticed_in_passing(watch: TopicWatch) -> None:
    watch.learn()
    make_topic_anew()
    with pytest.raises(TopicReplacedError, match="deleted and made anew"):
        wait_until(lambda: watch.look())


def test_missing_topic_is_told_once_and_waited_for(
    watch: TopicWatch, topic: str, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    watch.learn()
    admin = make_admin()
    admin.delete_topics([topic])[topic].result(10)
    looks = iter(range(10**6))

    def is_told() -> bool:
        watch.look()
        return next(looks) > 20 and events_logged(caplog)["topic.missing"] > 0

    with caplog.at_level(logging.INFO):
        wait_until(is_told)
    assert events_logged(caplog)["topic.missing"] == 1
    wait_until(topic_was_made)


def test_kafka_away_raises(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    monkeypatch.setattr(watches, "ANSWER_TIMEOUT_S", 0.3)
    settings.KAFKA_BOOTSTRAP_SERVERS = "127.0.0.1:1"
    with pytest.raises(KafkaException):
        TopicWatch().learn()


def test_kafka_away_for_long_takes_no_memory(settings: Settings) -> None:
    """librdkafka keeps each word that nobody takes."""
    settings.KAFKA_BOOTSTRAP_SERVERS = "127.0.0.1:1"
    watch = TopicWatch()
    # The stubs do not know that a client has a length.
    client: Any = watch._clients.get()
    watch.look()
    wait_until(lambda: len(client) > 10, what="some tries have failed")
    watch.look()
    assert len(client) <= 10


def test_broker_without_ids_is_put_up_with(settings: Settings) -> None:
    memory = Producer({"test.mock.num.brokers": 1, "log_level": 0})
    brokers = memory.list_topics(settings.KAFKA_TOPIC, timeout=10).brokers.values()
    settings.KAFKA_BOOTSTRAP_SERVERS = ",".join(f"{each.host}:{each.port}" for each in brokers)
    watch = TopicWatch()
    assert watch.learn() == ""
    watch.look()


def test_offset_of_a_topic_whose_id_is_not_told_is_trusted(topic: str, settings: Settings) -> None:
    """As by a broker that is only starting: it knows no controller yet."""
    with closing(make_consumer({})) as consumer:
        committed = TopicPartition(topic, 0, 0, metadata="topic=one")
        consumer.commit(offsets=[committed], asynchronous=False)
        partitions = [TopicPartition(topic, 0)]
        positions = starting_positions(consumer, partitions, topic_id="", reset=None)
        assert [(each.position.partition, each.position.offset) for each in positions] == [(0, 0)]
        with pytest.raises(TopicReplacedError):
            starting_positions(consumer, partitions, topic_id="other", reset=None)


def test_broker_that_lost_its_controller_is_asked_again(settings: Settings) -> None:
    memory = Producer({"test.mock.num.brokers": 1, "log_level": 0})
    brokers = memory.list_topics(settings.KAFKA_TOPIC, timeout=10).brokers.values()
    settings.KAFKA_BOOTSTRAP_SERVERS = ",".join(f"{each.host}:{each.port}" for each in brokers)
    watch = TopicWatch()
    watch._known = "an-id"
    with pytest.raises(KafkaException):
        watch.learn()
