import json
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from confluent_kafka import Consumer, KafkaError, Message
from django.conf import settings as django_settings
from django.core.management import call_command
from django.db import connection
from pytest_django import Settings

from prices.clock import database_now
from prices.database.uuid7 import first_id_at, made_at_ms, new_ids
from prices.models import PricePoint, RawMarketData, SymbolAverage
from prices.publishing import outbox
from prices.publishing.kafka_clients import make_producer
from prices.publishing.outbox import DELIVERY_TIMEOUT_S, publisher, republish_missing, sweep
from tests.ended_clients import end_for_good
from tests.kafka_topics import change_topic
from tests.mock_broker import MOCK_BROKER, answer_with_error
from tests.waiting import wait_until

NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(minutes=1)


@pytest.fixture
def kafka_away(settings: Settings) -> None:
    settings.KAFKA_BOOTSTRAP_SERVERS = "127.0.0.1:1"
    outbox.forget_publisher()


def make_points(
    count: int, *, received_at: datetime = LONG_AGO, poll: UUID | None = None
) -> list[PricePoint]:
    (raw_id,) = new_ids(1)
    RawMarketData.objects.create(
        id=raw_id,
        poll=poll,
        provider="finnhub",
        symbols=["AAPL"],
        url="",
        outcome="quote",
        received_at=received_at,
        latency_ms=1.0,
    )
    return PricePoint.objects.bulk_create(
        PricePoint(
            id=point_id,
            symbol="AAPL",
            provider="finnhub",
            price=Decimal("150.25"),
            observed_at=received_at,
            precision="second",
            received_at=received_at,
            raw=raw_id,
        )
        for point_id in new_ids(count)
    )


def sweep_until_published(count: int) -> None:
    # On a busy machine a first connection may take longer than one try waits.
    swept: list[int] = []

    def all_published() -> bool:
        swept.append(sweep())
        return sum(swept) == count

    wait_until(all_published)


def read_topic(topic: str, count: int) -> list[Message]:
    consumer = Consumer(
        {
            "bootstrap.servers": django_settings.KAFKA_BOOTSTRAP_SERVERS,
            "group.id": f"reader-{uuid4()}",
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    consumer.subscribe([topic])
    messages: list[Message] = []

    def read_all() -> bool:
        messages.extend(consumer.consume(count, 0.2))
        return len(messages) >= count

    wait_until(read_all)
    consumer.close()
    return messages


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
def test_sweep_publishes_what_stayed_behind_in_order(topic: str) -> None:
    poll = uuid4()
    points = make_points(5, poll=poll)
    sweep_until_published(5)
    messages = read_topic(topic, 5)
    assert [json.loads(message.value() or b"")["event_id"] for message in messages] == [
        str(point.id) for point in points
    ]
    assert ("poll_id", str(poll).encode()) in (messages[0].headers() or [])
    assert sweep() == 0


@pytest.mark.django_db
def test_points_too_far_ahead_of_kafkas_clock_wait_for_it(
    topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    make_points(1)
    sweep_until_published(1)
    ahead = make_points(3)
    for number, point in enumerate(ahead):
        later = first_id_at(datetime.now(UTC) + timedelta(minutes=2)).int
        PricePoint.objects.filter(id=point.id).update(id=UUID(int=later | 7 << 76 | 2 << 62 | number))
    early = list(PricePoint.objects.filter(published_at=None).order_by("id"))
    publication = publisher().publish(early, polls={})
    assert (publication.confirmed, publication.early, publication.is_answered) == (0, 3, True)
    assert PricePoint.objects.filter(published_at=None).count() == 3
    assert "outbox.kafka_clock_behind" in caplog.text
    (in_time,) = make_points(1)
    assert publisher().publish([*early, in_time], polls={}).confirmed == 1
    sent = [json.loads(message.value() or b"")["event_id"] for message in read_topic(topic, 2)]
    assert sent[-1] == str(in_time.id)


@pytest.mark.django_db
def test_kafka_taking_what_is_too_far_ahead_publishes_nothing(topic: str) -> None:
    (point,) = make_points(1)
    later = UUID(int=first_id_at(datetime.now(UTC) + timedelta(hours=2)).int | 7 << 76 | 2 << 62)
    PricePoint.objects.filter(id=point.id).update(id=later)
    early = list(PricePoint.objects.all())
    # Whoever sends first does not know Kafka's clock yet.
    wait_until(lambda: publisher().publish(early, polls={}).early == 1)
    assert PricePoint.objects.get().published_at is None
    assert len(read_topic(topic, 1)) == 1


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
def test_sweep_leaves_young_points_to_their_poll(topic: str) -> None:
    make_points(1, received_at=datetime.now(UTC))
    assert sweep() == 0


@pytest.mark.django_db
def test_sweep_goes_on_over_more_than_one_batch(topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "SWEEP_BATCH", 2)
    make_points(5)
    sweep_until_published(5)


@pytest.mark.django_db
def test_sweep_beside_another_does_nothing(topic: str) -> None:
    make_points(1)
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(hashtext(%s))", [outbox.SWEEP_LOCK])
        assert sweep() == 0
    finally:
        other.close()
    sweep_until_published(1)


@pytest.mark.django_db(transaction=True)
def test_sweep_ends_when_its_session_does(topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "SWEEP_BATCH", 1)
    make_points(3)
    mark = outbox.mark_published

    def mark_at_a_new_session(point_ids: Sequence[UUID]) -> None:
        # As a session that PostgreSQL ended, which is made anew for what must not be lost.
        connection.close()
        mark(point_ids)

    monkeypatch.setattr(outbox, "mark_published", mark_at_a_new_session)
    wait_until(lambda: sweep() == 1)
    assert PricePoint.objects.filter(published_at=None).count() == 2


@pytest.mark.django_db
def test_point_that_kafka_refuses_holds_up_no_other(
    topic: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox, "SWEEP_BATCH", 4)
    first, refused, *_others = make_points(10)
    change_topic(topic, max_message_bytes="3000")
    PricePoint.objects.filter(id=refused.id).update(symbol="A" * 9000)
    began = datetime.now(UTC)
    sweep_until_published(9)
    # There are three batches, each with the one that is refused.
    assert datetime.now(UTC) - began < timedelta(seconds=3 * outbox.PAUSE_AFTER_FAILURE_S)
    assert PricePoint.objects.get(published_at=None).id == refused.id
    assert "outbox.refused_by_kafka" in caplog.text
    assert str(refused.id) in caplog.text
    assert str(first.id) not in caplog.text


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
def test_points_of_long_ago_say_nothing_of_kafkas_clock(
    topic: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    points = make_points(4)
    for number, point in enumerate(points[:3]):
        earlier = first_id_at(datetime.now(UTC) - timedelta(hours=2)).int
        PricePoint.objects.filter(id=point.id).update(id=UUID(int=earlier | 7 << 76 | 2 << 62 | number))
    *old, young = PricePoint.objects.order_by("id")
    assert publisher().publish(old[:1], polls={}, now=database_now()).confirmed == 1
    # As if it were an hour behind, and known for as long as a busy machine takes.
    monkeypatch.setattr(outbox, "MAX_AHEAD_MS", -3_600_000)
    monkeypatch.setattr(outbox, "KAFKAS_CLOCK_HOLDS_S", 600.0)
    caplog.set_level(logging.INFO)
    for each in (young, old[1], young, old[2]):
        publisher().publish([each], polls={}, now=database_now())
    assert caplog.text.count("outbox.kafka_clock_behind") == 1
    assert "outbox.kafka_clock_agrees" not in caplog.text


@pytest.mark.django_db
def test_republish_missing_goes_through_the_days(topic: str) -> None:
    days = [first_id_at(NOW - timedelta(days=days)) for days in (400, 3, 2, 0)]
    PricePoint.objects.bulk_create(
        PricePoint(
            id=point_id,
            symbol="AAPL",
            provider="finnhub",
            price=Decimal(1),
            precision="unknown",
            received_at=NOW,
            raw=point_id,
            published_at=NOW,
        )
        for point_id in days
    )
    assert republish_missing() == len(days)
    assert republish_missing() == 0


@pytest.mark.django_db
def test_republish_missing_takes_points_without_average(capsys: pytest.CaptureFixture[str]) -> None:
    averaged, lost = make_points(2)
    PricePoint.objects.update(published_at=NOW)
    SymbolAverage.objects.create(
        event_id=averaged.id, symbol="AAPL", price=averaged.price, window_size=1, provider="finnhub"
    )
    assert republish_missing() == 1
    assert PricePoint.objects.get(published_at=None) == lost
    call_command("republish", "--missing")
    assert capsys.readouterr().out == "0 points go to Kafka again\n"


@pytest.mark.django_db
def test_message_that_kafka_takes_for_a_repetition_is_sent_again(
    topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it answers, and has nothing, where the second batch for a new partition came before the first."""
    (point,) = make_points(1)
    with monkeypatch.context() as mocked:
        mocked.setattr(outbox, "_make_producer", lambda: make_producer(MOCK_BROKER))
        outbox.forget_publisher()
        answer_with_error(publisher()._producers.get(), KafkaError.DUPLICATE_SEQUENCE_NUMBER)
        first = publisher().publish([point], polls={})
    assert (first.confirmed, list(first.refused), first.is_answered) == (0, [point.id], True)
    point.refresh_from_db()
    assert point.published_at is None
    outbox.forget_publisher()
    sweep_until_published(1)
