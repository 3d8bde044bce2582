"""Events, messages and points for the tests of the consumer, and the definition that averages obey."""

import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cache
from itertools import count
from typing import Any
from uuid import UUID

from confluent_kafka import Message, Producer
from django.conf import settings

from consumers.columns import columns_of
from consumers.rows import rows_of
from consumers.store import AverageStore, Plan
from prices.events import PriceEvent, encode_event
from prices.ids import first_id_at
from prices.models import DeadLetter, PricePoint, SymbolAverage


class EventStore:
    """A store that takes events as the tests have them."""

    def __init__(self) -> None:
        self._store = AverageStore()

    def write(self, events: Iterable[PriceEvent], dead_letters: Sequence[DeadLetter] = ()) -> None:
        plan = self.plan(events, dead_letters)
        assert plan is not None
        self.write_plan(plan)

    def plan(
        self, events: Iterable[PriceEvent], dead_letters: Sequence[DeadLetter] = (), *, ahead: bool = False
    ) -> Plan | None:
        columns = columns_of(events)
        return self._store.plan(columns, rows_of(columns), dead_letters, ahead=ahead)

    def write_plan(self, plan: Plan) -> None:
        self._store.write(plan)

    def forget(self) -> None:
        self._store.forget()

    def close(self) -> None:
        self._store.close()


BEGIN = datetime(2026, 1, 5, 12, tzinfo=UTC)
# The broker's time of messages: a second after the first event.
BROKER_TIME = (2, int(BEGIN.timestamp() + 1) * 1000)
RAW = UUID("01890000-0000-7000-8000-000000000001")


def event_id(number: int, *, symbol: str = "SIM-A") -> UUID:
    """Give a UUIDv7 whose order is that of `number`, one for each millisecond and symbol."""
    first = first_id_at(BEGIN + timedelta(milliseconds=number))
    return UUID(int=first.int | 7 << 76 | 2 << 62 | zlib.crc32(symbol.encode()))


def event(number: int, *, symbol: str = "SIM-A", price: str = "100") -> PriceEvent:
    """Give the event of a symbol's point at `number` milliseconds."""
    return PriceEvent(
        event_id=event_id(number, symbol=symbol),
        symbol=symbol,
        price=Decimal(price),
        provider="simulated",
        observed_at=BEGIN,
    )


def events(prices: Iterable[str], *, symbol: str = "SIM-A") -> list[PriceEvent]:
    """Give one event a price, in order."""
    return [event(number, symbol=symbol, price=price) for number, price in enumerate(prices)]


def point(number: int, *, symbol: str = "SIM-A", price: str = "100", published: bool = True) -> PricePoint:
    """Store the point of `event` with the same arguments."""
    (stored,) = points_of(number, {symbol: price}, published=published)
    return stored


def points_of(number: int, prices: Mapping[str, str], *, published: bool = True) -> list[PricePoint]:
    """Store a point of each symbol at `number` milliseconds."""
    points = [
        PricePoint(
            id=event_id(number, symbol=symbol),
            symbol=symbol,
            provider="simulated",
            price=Decimal(price),
            observed_at=BEGIN,
            precision="second",
            received_at=BEGIN,
            raw=RAW,
            published_at=BEGIN if published else None,
        )
        for symbol, price in prices.items()
    ]
    return PricePoint.objects.bulk_create(points)


@cache
def kafka_producer(servers: str) -> Producer:
    """Give a producer for these servers; the same one each time, as connecting takes a while."""
    return Producer(
        {
            "bootstrap.servers": servers,
            "linger.ms": 1,
            # What is too large is for the broker to say.
            "message.max.bytes": 100_000_000,
            # Else what is sent again on a slow machine comes after what was sent later.
            "enable.idempotence": True,
        }
    )


def produce(points: Sequence[PricePoint]) -> None:
    """Send the points to the topic of the test, as the outbox would, and wait until Kafka has them."""
    producer = kafka_producer(settings.KAFKA_BOOTSTRAP_SERVERS)
    for each in points:
        message = encode_event(each, poll=None)
        producer.produce(settings.KAFKA_TOPIC, key=message.key, value=message.value, headers=message.headers)
    assert producer.flush(10) == 0


def message(offset: int = 0, **changes: Any) -> Message:
    """Give the message of a sound event, with these parts changed."""
    unsaved = PricePoint(
        id=event_id(offset),
        symbol="SIM-A",
        provider="simulated",
        price=event(offset).price,
        observed_at=BEGIN,
        precision="second",
        received_at=BEGIN,
        raw=RAW,
    )
    encoded = encode_event(unsaved, poll=None)
    parts: dict[str, Any] = {
        "topic": "t",
        "partition": 0,
        "offset": offset,
        "key": encoded.key,
        "value": encoded.value,
        "headers": encoded.headers,
        "timestamp": BROKER_TIME,
    }
    return Message(**parts | changes)


def averages() -> list[Decimal | None]:
    """Give all stored averages in the order of their ids."""
    return list(SymbolAverage.objects.order_by("event_id").values_list("average", flat=True))


def assert_averages_right(expected: Iterable[PriceEvent]) -> None:
    """Compare the table with the definition: these events, each once, each with the mean of its window."""
    wanted = {each.event_id: (each.symbol, each.price) for each in expected}
    by_symbol = defaultdict(list)
    for row in SymbolAverage.objects.order_by("event_id"):
        assert wanted.pop(row.event_id) == (row.symbol, row.price)
        by_symbol[row.symbol].append(row)
    assert wanted == {}
    for rows in by_symbol.values():
        for number, row in zip(count(1), rows, strict=False):
            window = [each.price for each in rows[max(0, number - 5) : number]]
            assert row.window_size == len(window)
            mean = sum(map(Fraction, window), Fraction()) / 5 if len(window) == 5 else None
            stored = None if row.average is None else Fraction(row.average)
            assert stored == mean, f"{row.symbol} {row.event_id}: {row.average}"
