"""Price events by the million: the same ones for each run, in the order in which they reach the topic."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from django.conf import settings

PARTITIONS = 12
DUPLICATES, LATE = 0.05, 0.02
# How far back an event is sent again, and how far others overtake one that is late.
REACH = 10_000
_RAW = UUID("01900000-0000-7000-8000-000000000000")


@dataclass(frozen=True, slots=True)
class Event:
    """One price. The ids of all events rise in the order in which they were made."""

    event_id: UUID
    symbol: str
    price: Decimal
    observed_at: datetime

    @property
    def value(self) -> bytes:
        """The message's value, as the outbox writes it."""
        return (
            f'{{"event_id":"{self.event_id}","symbol":"{self.symbol}","price":{self.price:f},'
            f'"timestamp":"{self.observed_at:%Y-%m-%dT%H:%M:%SZ}","source":"simulated",'
            f'"raw_response_id":"{_RAW}"}}'
        ).encode()


def make_events(count: int, *, symbols: int, end: datetime) -> Iterator[Event]:
    """Give `count` events of so many symbols, a random walk each, made in the hour that ends at `end`."""
    chance = random.Random(1)
    names = [f"SIM-{number:04}" for number in range(symbols)]
    cents = {name: chance.randrange(1_000, 50_000) for name in names}
    first_ms = int(end.timestamp() * 1000) - 3_600_000
    for number in range(count):
        name = chance.choice(names)
        cents[name] = max(cents[name] + chance.randrange(-20, 21), 100)
        milliseconds = first_ms + number * 3_600_000 // count
        yield Event(
            event_id=_uuid7(milliseconds, number),
            symbol=name,
            price=Decimal(cents[name]).scaleb(-2),
            observed_at=datetime.fromtimestamp(milliseconds // 1000, tz=UTC),
        )


def disordered(events: Iterator[Event]) -> Iterator[Event]:
    """Give the events with 2 % of them late, and 5 % of them twice."""
    chance = random.Random(2)
    held: dict[int, list[Event]] = {}
    sent: list[Event] = []
    for number, event in enumerate(events):
        if chance.random() < LATE:
            held.setdefault(number + chance.randrange(1, REACH), []).append(event)
        else:
            sent.append(event)
            yield event
        yield from held.pop(number, [])
        if chance.random() < DUPLICATES and sent:
            yield sent[-chance.randrange(1, min(len(sent), REACH) + 1)]
        if len(sent) > 2 * REACH:
            del sent[:-REACH]
    for left in held.values():
        yield from left


def fill_topic(name: str, events: Iterator[Event]) -> int:
    """Make the topic and send the events to it, with the outbox's headers; give how many were sent."""
    address: dict[str, Any] = {"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS}
    topic = NewTopic(name, num_partitions=PARTITIONS, config={"message.timestamp.type": "LogAppendTime"})
    client = AdminClient(address)
    client.create_topics([topic])[name].result(30)
    producer = Producer(address | {"linger.ms": 50, "queue.buffering.max.messages": 200_000})
    count = 0
    for event in events:
        send(producer, name, event)
        count += 1
    producer.flush()
    return count


def send(producer: Producer, topic: str, event: Event) -> None:
    """Hand the event to the producer, waiting while its queue is full."""
    while True:
        try:
            producer.produce(topic, key=event.symbol, value=event.value, headers=_headers(event))
        except BufferError:
            producer.poll(0.1)
        else:
            producer.poll(0)
            return


def _headers(event: Event) -> list[tuple[str, str | bytes | None]]:
    return [
        ("v", b"1"),
        ("precision", b"second"),
        ("currency", b"USD"),
        ("received_at", event.observed_at.isoformat().encode()),
        ("poll_id", str(_RAW).encode()),
    ]


def _uuid7(milliseconds: int, number: int) -> UUID:
    return UUID(int=milliseconds << 80 | 0x7 << 76 | (number & 0xFFF) << 64 | 0b10 << 62 | number)
