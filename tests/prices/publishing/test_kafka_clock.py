import json
import logging
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from prices.clock import database_now
from prices.database.uuid7 import first_id_at
from prices.models import PricePoint
from prices.publishing import kafka_clock
from prices.publishing.publisher import publisher
from tests.prices.publishing.points import make_points, read_topic, sweep_until_published
from tests.waiting import wait_until


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
    monkeypatch.setattr(kafka_clock, "MAX_AHEAD_MS", -3_600_000)
    monkeypatch.setattr(kafka_clock, "KAFKAS_CLOCK_HOLDS_S", 600.0)
    caplog.set_level(logging.INFO)
    for each in (young, old[1], young, old[2]):
        publisher().publish([each], polls={}, now=database_now())
    assert caplog.text.count("outbox.kafka_clock_behind") == 1
    assert "outbox.kafka_clock_agrees" not in caplog.text


@pytest.mark.django_db
def test_one_point_that_is_taken_in_time_lets_the_others_go(
    topic: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    points = make_points(3)
    wait_until(lambda: publisher().publish(points[:1], polls={}).confirmed)
    clock = publisher()._kafkas_clock
    clock.log_change(is_behind=True)
    monkeypatch.setattr(clock, "_known_at", float("-inf"))
    assert publisher().publish(points, polls={}).confirmed == 3
    assert caplog.text.count("outbox.kafka_clock_agrees") == 1


@pytest.mark.django_db
def test_silent_kafka_says_nothing_of_its_clock(kafka_away: None, caplog: pytest.LogCaptureFixture) -> None:
    points = make_points(3)
    clock = publisher()._kafkas_clock
    clock.log_change(is_behind=True)
    assert publisher().publish(points[:1], polls={}).confirmed == 0
    assert "outbox.kafka_clock_agrees" not in caplog.text
    assert clock.in_time(points) == points[:1]
