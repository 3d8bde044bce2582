import json
import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from confluent_kafka import KafkaError
from pytest_django import Settings

from prices.database.uuid7 import made_at_ms
from prices.models import PricePoint
from prices.publishing import publisher as publishing
from prices.publishing.kafka_clients import make_producer
from prices.publishing.publisher import DELIVERY_TIMEOUT_S, forget_publisher, publisher
from tests.ended_clients import end_for_good
from tests.kafka_topics import change_topic
from tests.mock_broker import MOCK_BROKER, answer_with_error
from tests.prices.publishing.points import make_points, read_topic, sweep_until_published
from tests.waiting import wait_until


@pytest.mark.django_db
def test_publish_sends_points_and_marks_them(topic: str) -> None:
    points = make_points(3)
    poll = uuid4()
    # On a busy machine a first connection may take longer than one try waits.
    wait_until(lambda: publisher().publish(points, polls={points[0].raw: poll}).confirmed == 3)
    assert PricePoint.objects.filter(published_at=None).count() == 0
    messages = read_topic(topic, 3)
    assert [json.loads(message.value() or b"")["event_id"] for message in messages] == [
        str(point.id) for point in points
    ]
    assert ("poll_id", str(poll).encode()) in (messages[0].headers() or [])


@pytest.mark.django_db
def test_publish_with_kafka_away_marks_nothing_and_returns_in_time(kafka_away: None) -> None:
    before = datetime.now(UTC)
    publication = publisher().publish(make_points(1), polls={})
    assert publication.confirmed == 0
    assert datetime.now(UTC) - before < timedelta(seconds=20)
    assert PricePoint.objects.get().published_at is None


@pytest.mark.django_db
def test_publish_after_a_failure_does_not_try_for_a_while(kafka_away: None) -> None:
    points = make_points(1)
    publisher().publish(points, polls={})
    before = datetime.now(UTC)
    publisher().publish(points, polls={})
    assert datetime.now(UTC) - before < timedelta(seconds=DELIVERY_TIMEOUT_S)


@pytest.mark.django_db
def test_messages_have_the_time_of_postgresqls_clock(topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change_topic(topic, message_timestamp_type="CreateTime")
    two_hours_s = 7200
    clock = time.time_ns
    # What Kafka would refuse from a producer whose own clock is so far ahead.
    monkeypatch.setattr(time, "time_ns", lambda: clock() + two_hours_s * 10**9)
    points = make_points(2)
    wait_until(lambda: publisher().publish(points[:1], polls={}).confirmed == 1)
    sweep_until_published(1)
    assert [message.timestamp()[1] // 60_000 for message in read_topic(topic, 2)] == pytest.approx(
        [made_at_ms(point.id) // 60_000 for point in points], abs=2
    )


@pytest.mark.django_db
def test_producer_that_failed_for_good_is_replaced(topic: str, caplog: pytest.LogCaptureFixture) -> None:
    points = make_points(3)
    # So ends a producer that may write nothing. Kafka takes the next one, once that is allowed.
    end_for_good(publisher()._producers.get(), KafkaError.CLUSTER_AUTHORIZATION_FAILED)
    assert publisher().publish(points, polls={}).confirmed == 0
    assert "by a test" in caplog.text
    sweep_until_published(3)
    assert len(read_topic(topic, 3)) == 3


@pytest.mark.django_db
def test_settings_that_make_no_producer_are_a_kafka_that_is_away(
    topic: str, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    points = make_points(1)
    settings.KAFKA_SECURITY_PROTOCOL, settings.KAFKA_CA_FILE = "SSL", "/nowhere/ca.pem"
    assert publisher().publish(points, polls={}).confirmed == 0
    assert "ssl.ca.location failed" in caplog.text
    settings.KAFKA_SECURITY_PROTOCOL, settings.KAFKA_CA_FILE = "PLAINTEXT", ""
    sweep_until_published(1)


@pytest.mark.django_db
def test_message_that_kafka_takes_for_a_repetition_is_sent_again(
    topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it answers, and has nothing, where the second batch for a new partition came before the first."""
    (point,) = make_points(1)
    with monkeypatch.context() as mocked:
        mocked.setattr(publishing, "_make_producer", lambda: make_producer(MOCK_BROKER))
        forget_publisher()
        answer_with_error(publisher()._producers.get(), KafkaError.DUPLICATE_SEQUENCE_NUMBER)
        first = publisher().publish([point], polls={})
    assert (first.confirmed, list(first.refused), first.is_answered) == (0, [point.id], True)
    point.refresh_from_db()
    assert point.published_at is None
    forget_publisher()
    sweep_until_published(1)
