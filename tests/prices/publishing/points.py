"""Stored points for tests, and what of them is in the topic."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

from confluent_kafka import Consumer, Message
from django.conf import settings as django_settings

from prices.database.uuid7 import new_ids
from prices.models import PricePoint, RawMarketData
from prices.publishing.outbox import sweep
from tests.waiting import wait_until

NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(minutes=1)


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
