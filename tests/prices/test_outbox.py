import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from confluent_kafka import Consumer, Message
from django.conf import settings as django_settings
from django.core.management import call_command
from django.db import connection
from pytest_django import Settings

from prices import outbox
from prices.ids import new_ids
from prices.models import PricePoint, RawMarketData, SymbolAverage
from prices.outbox import publisher, republish_missing, sweep
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

    wait_until(all_published, timeout_s=20)


def read_topic(topic: str, count: int) -> list[Message]:
    consumer = Consumer(
        {
            "bootstrap.servers": django_settings.KAFKA_BOOTSTRAP_SERVERS,
            "group.id": f"reader-{uuid4()}",
            "auto.offset.reset": "earliest",
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
    publication = publisher().publish(points, polls={points[0].raw: poll})
    assert (publication.confirmed, publication.attempted) == (3, 3)
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
    assert datetime.now(UTC) - before < timedelta(seconds=4)
    assert PricePoint.objects.get().published_at is None


@pytest.mark.django_db
def test_publish_after_a_failure_does_not_try_for_a_while(kafka_away: None) -> None:
    points = make_points(1)
    publisher().publish(points, polls={})
    before = datetime.now(UTC)
    publisher().publish(points, polls={})
    assert datetime.now(UTC) - before < timedelta(seconds=0.5)


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
