"""The topic gets more partitions, as docs/operations.md tells to, while everything runs."""

import random
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.cimpl import NewPartitions
from django.conf import settings

from consumers.averages.store import AverageStore
from consumers.handler import AverageHandler
from consumers.repair.verify import Verdict, verify_averages
from prices.models import PricePoint, SymbolAverage
from prices.publishing.events import encode_event
from prices.publishing.kafka_clients import delivery_error, make_admin, make_producer
from tests.consumers.running import committed, messages_left, running
from tests.consumers.samples import points_of
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
SYMBOLS = [f"SIM-{number}" for number in range(12)]
BEFORE, AFTER = 3, 8


class Sender:
    """Stores points, and sends them by one producer or by two in turn, as several pollers would."""

    def __init__(self) -> None:
        self.producers = [new_producer()]
        self.partitions: dict[str, set[int]] = {symbol: set() for symbol in SYMBOLS}
        self._number = 0
        self._chance = random.Random(5)

    def send(self, rounds: int) -> None:
        """Send a point of each symbol in each round."""
        for _ in range(rounds):
            prices = {symbol: str(self._chance.randint(1, 10**6) / 100) for symbol in SYMBOLS}
            producer = self.producers[self._number % len(self.producers)]
            for point in points_of(self._number, prices):
                encoded = encode_event(point, poll=None)
                producer.produce(
                    settings.KAFKA_TOPIC,
                    key=encoded.key,
                    value=encoded.value,
                    headers=encoded.headers,
                    on_delivery=self._note,
                )
            assert producer.flush(10) == 0
            self._number += 1

    def _note(self, error: KafkaError | None, message: Message) -> None:
        key, partition = message.key(), message.partition()
        assert delivery_error(error, message) is None
        assert key is not None
        assert partition is not None
        self.partitions[key.decode()].add(partition)


def new_producer() -> Producer:
    # Partitions are new here: the second batch for one may be taken before the first, which is then lost.
    return make_producer({"linger.ms": 1, "max.in.flight.requests.per.connection": 1})


@pytest.fixture
def two_consumers(transactional_db: None, topic: str, heartbeats: None) -> Iterator[None]:
    """Run two consumers of the test's group."""
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(running(AverageHandler(AverageStore())))
        yield


@pytest.mark.usefixtures("two_consumers")
def test_partitions_added_while_all_runs_leave_nothing_wrong_or_missing() -> None:
    """One producer still fills the old partitions while another fills all: symbols are in two at once."""
    sender = Sender()
    sender.send(10)
    wait_until(lambda: all(offset > 0 for offset in committed(range(BEFORE)).values()))
    raise_partitions()
    sender.producers.append(new_producer())
    sender.send(10)
    moved = [symbol for symbol, partitions in sender.partitions.items() if len(partitions) == 2]
    assert moved
    wait_until(new_partitions_are_read)
    sender.send(20)
    wait_until(lambda: SymbolAverage.objects.count() == PricePoint.objects.count())
    wait_until(lambda: messages_left(wait_s=0) == 0)
    verification = verify_averages()
    assert verification.note is None
    found = {verdict: number for verdict, number in verification.counts.items() if number}
    assert found == {Verdict.RIGHT: 40 * len(SYMBOLS)}


def raise_partitions() -> None:
    admin = make_admin()
    admin.create_partitions([NewPartitions(settings.KAFKA_TOPIC, AFTER)])[settings.KAFKA_TOPIC].result(10)

    def is_known() -> bool:
        found = new_producer().list_topics(settings.KAFKA_TOPIC, timeout=5).topics[settings.KAFKA_TOPIC]
        return len(found.partitions) == AFTER

    wait_until(is_known)


def new_partitions_are_read() -> bool:
    return any(offset > 0 for offset in committed(range(BEFORE, AFTER)).values())
