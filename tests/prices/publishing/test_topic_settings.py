"""Topics that lose messages are refused by ensure_topic and the consumer, and odd ones are named."""

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from prices.publishing.kafka_clients import make_admin
from prices.publishing.topic_settings import (
    TopicFindings,
    UnsuitableTopicError,
    look_at_topic,
    refuse_unsuitable,
)
from tests.kafka_topics import change_topic
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("topic")


def odd() -> str:
    return "; ".join(look_at_topic(make_admin()).odd)


def test_topic_as_it_is_made_is_right() -> None:
    assert look_at_topic(make_admin()) == TopicFindings(None, [])


@pytest.mark.parametrize("policy", ["compact", "compact,delete"])
def test_compacted_topic_is_refused(topic: str, policy: str) -> None:
    change_topic(topic, cleanup_policy=policy)
    wait_until(lambda: look_at_topic(make_admin()).loses)
    with pytest.raises(UnsuitableTopicError, match=rf"{topic} has cleanup.policy="):
        refuse_unsuitable(make_admin())
    with pytest.raises(CommandError, match=r"cleanup\.policy="):
        call_command("ensure_topic")
    with pytest.raises(CommandError, match=r"cleanup\.policy=") as caught:
        call_command("consume_prices")
    assert caught.value.returncode == 78


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("retention_ms", "60000", "retention.ms=60000"),
        ("retention_bytes", "1000000", "retention.bytes=1000000"),
        ("message_timestamp_type", "CreateTime", "message.timestamp.type=CreateTime"),
        ("min_insync_replicas", "2", "min.insync.replicas=2, more than a partition has replicas (1)"),
    ],
)
def test_odd_setting_is_named(topic: str, name: str, value: str, says: str) -> None:
    change_topic(topic, **{name: value})
    wait_until(lambda: says in odd())


def test_fewer_partitions_than_configured_are_named(settings: Settings) -> None:
    settings.KAFKA_PARTITIONS = 4
    assert "has 3 partitions and KAFKA_PARTITIONS is 4" in odd()
