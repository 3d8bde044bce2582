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

from confluent_kafka import KafkaError, Message, Producer
from django.conf import settings

from consumers.averages.batches import IDS_IN_A_ROW
from consumers.averages.columns import columns_of
from consumers.averages.rows import rows_of
from consumers.averages.store import AverageStore, PreparedBatch
from prices.database.uuid7 import first_id_at
from prices.models import AverageBatch, DeadLetter, PricePoint, SymbolAverage
from prices.publishing.events import PriceEvent, encode_event
from prices.publishing.kafka_clients import delivery_error


class EventStore:
    """A store that takes events as the tests have them."""

    def __init__(self) -> None:
        self._store = AverageStore()

    def write(self, events: Iterable[PriceEvent], dead_letters: Sequence[DeadLetter] = ()) -> None:
        prepared = self.prepare(events, dead_letters)
        assert prepared is not None
        self.write_prepared(prepared)

    def prepare(
        self,
        events: Iterable[PriceEvent],
        dead_letters: Sequence[DeadLetter] = (),
        *,
        speculative: bool = False,
    ) -> PreparedBatch | None:
        columns = columns_of(events)
        return self._store.prepare(columns, rows_of(columns), dead_letters, speculative=speculative)

    def write_prepared(self, prepared: PreparedBatch) -> None:
        self._store.write(prepared)

    def invalidate(self) -> None:
        self._store.invalidate()

    def close(self) -> None:
        self._store.close()


BEGIN = datetime(2026, 1, 5, 12, tzinfo=UTC)
# The broker's time of messages: a second after the first event.
BROKER_TIME = (2, int(BEGIN.timestamp() + 1) * 1000)
RAW = UUID("01890000-0000-7000-8000-000000000001")


def event_id(number: int, *, symbol: str = "SIM-A") -> UUID:
    """Return a UUIDv7 whose order is that of `number`, one for each millisecond and symbol."""
    first = first_id_at(BEGIN + timedelta(milliseconds=number))
    return UUID(int=first.int | 7 << 76 | 2 << 62 | zlib.crc32(symbol.encode()))


def event(
    number: int, *, symbol: str = "SIM-A", price: str = "100", currency: str | None = None
) -> PriceEvent:
    """Return the event of a symbol's point at `number` milliseconds."""
    return PriceEvent(
        event_id=event_id(number, symbol=symbol),
        symbol=symbol,
        price=Decimal(price),
        provider="simulated",
        observed_at=BEGIN,
        currency=currency,
    )


def events(prices: Iterable[str], *, symbol: str = "SIM-A") -> list[PriceEvent]:
    """Return one event a price, in order."""
    return [event(number, symbol=symbol, price=price) for number, price in enumerate(prices)]


def point(
    number: int,
    *,
    symbol: str = "SIM-A",
    price: str = "100",
    currency: str | None = None,
    published: bool = True,
) -> PricePoint:
    """Store the point of `event` with the same arguments."""
    (stored,) = points_of(number, {symbol: price}, currency=currency, published=published)
    return stored


def points_of(
    number: int, prices: Mapping[str, str], *, currency: str | None = None, published: bool = True
) -> list[PricePoint]:
    """Store a point of each symbol at `number` milliseconds."""
    points = [
        PricePoint(
            id=event_id(number, symbol=symbol),
            symbol=symbol,
            provider="simulated",
            price=Decimal(price),
            currency=currency,
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
    """Return a producer for these servers; the same one each time, as connecting takes a while."""
    return Producer(
        {
            "bootstrap.servers": servers,
            # It outlives stops of Kafka, and would write a line to stderr for each retry.
            "log_level": 0,
            "linger.ms": 1,
            # What is too large is for the broker to say.
            "message.max.bytes": 100_000_000,
            # Else what is sent again on a slow machine comes after what was sent later, or is lost: the
            # second batch for a new partition may be taken before the first.
            "enable.idempotence": True,
            "max.in.flight.requests.per.connection": 1,
        }
    )


class Sender:
    """Sends messages to the topic of the test; one that Kafka does not confirm fails the test."""

    def __init__(self) -> None:
        self._producer = kafka_producer(settings.KAFKA_BOOTSTRAP_SERVERS)
        self._errors: list[str] = []

    def produce(self, **parts: Any) -> None:
        """Send a message."""
        self._producer.produce(settings.KAFKA_TOPIC, on_delivery=self._note, **parts)

    def finish(self) -> None:
        """Wait until Kafka has all."""
        assert self._producer.flush(20) == 0
        assert not self._errors, self._errors

    def _note(self, error: KafkaError | None, message: Message) -> None:
        problem = delivery_error(error, message)
        if problem is not None:
            self._errors.append(problem.str())


def produce(points: Sequence[PricePoint]) -> None:
    """Send the points to the topic of the test, as the outbox would, and wait until Kafka has them."""
    sender = Sender()
    for each in points:
        encoded = encode_event(each, poll=None)
        sender.produce(key=encoded.key, value=encoded.value, headers=encoded.headers)
    sender.finish()


def dead_letter(offset: int = 0) -> DeadLetter:
    """Return a dead letter as the consumer makes them."""
    return DeadLetter(
        topic="t",
        partition=0,
        offset=offset,
        message_timestamp=BEGIN,
        group="g",
        key=None,
        value=b"x",
        reason="test",
    )


def message(offset: int = 0, **changes: Any) -> Message:
    """Return the message of a sound event, with these parts changed."""
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
    """Return all stored averages in the order of their ids."""
    return list(SymbolAverage.objects.order_by("event_id").values_list("average", flat=True))


def noted_kinds() -> dict[tuple[UUID, int], str]:
    """Return what batches tell of rows, by id and transaction: added or changed; each is listed once."""
    kinds: dict[tuple[UUID, int], str] = {}
    listed: set[tuple[str, UUID, int]] = set()
    for batch in AverageBatch.objects.order_by("tx", "number"):
        if batch.first_id is not None:
            in_range = SymbolAverage.objects.filter(
                event_id__range=(batch.first_id, batch.last_id), tx=batch.tx
            ).values_list("event_id", flat=True)
            for each in in_range:
                kinds.setdefault((each, batch.tx), "added")
        assert len(batch.added) + len(batch.changed) <= IDS_IN_A_ROW
        # What is listed may lie in a range of its transaction, too.
        for kind, ids in (("added", batch.added), ("changed", batch.changed)):
            for each in ids:
                assert (kind, each, batch.tx) not in listed
                listed.add((kind, each, batch.tx))
                kinds[each, batch.tx] = kind
    return kinds


def assert_averages_right(expected: Iterable[PriceEvent]) -> None:
    """Compare the table with the definition: these events, each once, each with the mean of its window.

    And each row's last change stands in a batch.
    """
    noted = noted_kinds()
    assert {(row.event_id, row.tx) for row in SymbolAverage.objects.all()} <= noted.keys()
    wanted = {each.event_id: (each.symbol, each.currency, each.price) for each in expected}
    by_series = defaultdict(list)
    for row in SymbolAverage.objects.order_by("event_id"):
        assert wanted.pop(row.event_id) == (row.symbol, row.currency, row.price)
        by_series[row.symbol, row.currency].append(row)
    assert wanted == {}
    for rows in by_series.values():
        for number, row in zip(count(1), rows, strict=False):
            window = [each.price for each in rows[max(0, number - 5) : number]]
            assert row.window_size == len(window)
            mean = sum(map(Fraction, window), Fraction()) / 5 if len(window) == 5 else None
            stored = None if row.average is None else Fraction(row.average)
            assert stored == mean, f"{row.symbol} {row.event_id}: {row.average}"
