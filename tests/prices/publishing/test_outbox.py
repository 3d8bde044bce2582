import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from django.core.management import call_command
from django.db import connection

from prices.database.uuid7 import first_id_at
from prices.models import PricePoint, SymbolAverage
from prices.publishing import outbox
from prices.publishing import publisher as publishing
from prices.publishing.outbox import republish_missing, sweep
from tests.kafka_topics import change_topic
from tests.prices.publishing.points import NOW, make_points, read_topic, sweep_until_published
from tests.waiting import wait_until


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


@pytest.mark.django_db(transaction=True)
def test_sweep_ends_when_its_session_does(topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "SWEEP_BATCH", 1)
    make_points(3)
    mark = publishing.mark_published

    def mark_at_a_new_session(point_ids: Sequence[UUID]) -> None:
        # As a session that PostgreSQL ended, which is made anew for what must not be lost.
        connection.close()
        mark(point_ids)

    monkeypatch.setattr(publishing, "mark_published", mark_at_a_new_session)
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
    assert datetime.now(UTC) - began < timedelta(seconds=3 * publishing.PAUSE_AFTER_FAILURE_S)
    assert PricePoint.objects.get(published_at=None).id == refused.id
    assert "outbox.refused_by_kafka" in caplog.text
    assert str(refused.id) in caplog.text
    assert str(first.id) not in caplog.text


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
