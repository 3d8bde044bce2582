"""Price events by the million: the same ones for each run, in the order in which they reach the topic.

They differ in what real ones differ in, since what repeats is cheaper to read: ids, times (of seconds, of
milliseconds, and the microseconds of `received_at` where the provider tells no time), sources, currencies,
and the digits of prices.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from confluent_kafka import Producer
from confluent_kafka.cimpl import NewTopic
from django.conf import settings

from prices.models import PricePoint
from prices.publishing.events import Message, encode_event
from prices.publishing.kafka_clients import make_admin

PARTITIONS = 12
DUPLICATES, LATE, UNUSUAL = 0.05, 0.02, 0.1
_PRICE = re.compile(rb'"price":(\d+)\.?(\d*)')
# How far back an event is sent again, and how far others overtake one that is late.
REACH = 10_000
SPAN = timedelta(hours=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# How often another provider than a symbol's own has to stand in.
FALLBACKS = 0.005


class Source(NamedTuple):
    """A provider: the unit of its times, None where it tells none, and whether it tells the currency."""

    name: str
    unit: timedelta | None
    tells_currency: bool


class Listing(NamedTuple):
    """A currency, the decimals of its prices, and a price to begin with, in the last decimal's unit."""

    currency: str
    decimals: int
    begin: int


SOURCES = (
    Source("finnhub", timedelta(seconds=1), tells_currency=False),
    Source("yfinance", timedelta(milliseconds=1), tells_currency=True),
    Source("alpha_vantage", None, tells_currency=False),
)
LISTINGS = (
    Listing("USD", 2, 15_025),
    Listing("USD", 4, 3_127_500),
    Listing("GBp", 1, 72_105),
    Listing("EUR", 3, 48_120),
    Listing("USD", 8, 1_234_567),
)


class Event(NamedTuple):
    """One price. The ids of all events rise in the order in which they were made."""

    event_id: UUID
    message: Message


def make_events(count: int, *, symbols: int, end: datetime) -> Iterator[Event]:
    """Yield `count` events of so many symbols, a random walk each, made in the hour that ends at `end`."""
    chance = random.Random(1)
    units = [LISTINGS[symbol % len(LISTINGS)].begin for symbol in range(symbols)]
    for number in range(count):
        received_at = end - SPAN + SPAN * number / count
        symbol = chance.randrange(symbols)
        listing = LISTINGS[symbol % len(LISTINGS)]
        units[symbol] = max(units[symbol] + chance.randrange(-20, 21), 100)
        source = chance.choice(SOURCES) if chance.random() < FALLBACKS else SOURCES[symbol % len(SOURCES)]
        point = PricePoint(
            id=_uuid7(received_at, chance),
            symbol=f"S{symbol:05}",
            provider=source.name,
            # As the adapters have it, without zeros at the end: so the number of digits varies, too.
            price=Decimal(units[symbol]).scaleb(-listing.decimals).normalize(),
            currency=listing.currency if source.tells_currency else None,
            observed_at=_provider_time(received_at, source.unit, chance),
            precision="second" if source.unit else "unknown",
            received_at=received_at,
            raw=_uuid7(received_at, chance),
        )
        yield Event(point.id, encode_event(point, poll=_uuid7(received_at, chance)))


def _provider_time(received_at: datetime, unit: timedelta | None, chance: random.Random) -> datetime | None:
    """Return a time of up to two seconds before, as exact as the provider tells it."""
    if unit is None:
        return None
    moment = received_at - timedelta(seconds=2) * chance.random()
    return moment - (moment - _EPOCH) % unit


def disordered(events: Iterator[Event]) -> Iterator[Event]:
    """Yield the events with 2 % of them late, and 5 % of them twice."""
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


def unusual(events: Iterator[Event]) -> Iterator[Event]:
    """Yield the events, one in ten at random with its price in another form of the same number: 15025e-2."""
    chance = random.Random(3)
    for event in events:
        yield event._replace(message=_with_exponent(event.message)) if chance.random() < UNUSUAL else event


def _with_exponent(message: Message) -> Message:
    whole, decimals = _PRICE.findall(message.value)[0]
    price = b'"price":%de-%d' % (int(whole + decimals), len(decimals))
    return replace(message, value=_PRICE.sub(price, message.value))


def fill_topic(name: str, events: Iterator[Event]) -> int:
    """Make the topic and send the events to it, with the outbox's headers; return how many were sent."""
    topic = NewTopic(name, num_partitions=PARTITIONS, config={"message.timestamp.type": "LogAppendTime"})
    client = make_admin()
    client.create_topics([topic])[name].result(30)
    producer = Producer(
        {
            "bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS,
            "linger.ms": 50,
            "queue.buffering.max.messages": 200_000,
            "log_level": 0,
        }
    )
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
            message = event.message
            producer.produce(topic, key=message.key, value=message.value, headers=message.headers)
        except BufferError:
            producer.poll(0.1)
        else:
            producer.poll(0)
            return


def _uuid7(moment: datetime, chance: random.Random) -> UUID:
    """Return an id as PostgreSQL makes them: milliseconds, 12 bits of what is below these, and chance."""
    microseconds = (moment - _EPOCH) // timedelta(microseconds=1)
    milliseconds, rest = divmod(microseconds, 1000)
    return UUID(
        int=milliseconds << 80 | 0x7 << 76 | rest * 4096 // 1000 << 64 | 0b10 << 62 | chance.getrandbits(62)
    )
