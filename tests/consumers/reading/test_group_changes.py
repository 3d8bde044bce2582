"""From one consumer to three and back, under load: every average is right, and nothing is written twice."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import count

import pytest
from django.db import connection
from pytest_django import Settings

from consumers.averages.store import AverageStore
from consumers.handler import AverageHandler
from prices.models import PricePoint, SymbolAverage
from prices.publishing.events import PriceEvent
from tests.consumers.running import RunningLoop, committed, running
from tests.consumers.samples import assert_averages_right, event, points_of, produce
from tests.waiting import wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("topic", "heartbeats")]
SYMBOLS = [f"SIM-{number}" for number in range(12)]


@contextmanager
def load() -> Iterator[list[PricePoint]]:
    """Store and send points for as long as the block runs; the list is complete after it."""
    sent: list[PricePoint] = []
    is_over = threading.Event()

    def go_on() -> None:
        with closing(connection):
            for number in count():
                points = points_of(number, {symbol: str(number % 17 + 1) for symbol in SYMBOLS})
                produce(points)
                sent.extend(points)
                if is_over.wait(0.002):
                    break

    sender = threading.Thread(target=go_on)
    sender.start()
    try:
        yield sent
    finally:
        is_over.set()
        sender.join(20)


def consumer() -> AverageHandler:
    return AverageHandler(AverageStore())


def events_of(sent: Sequence[PricePoint]) -> list[PriceEvent]:
    return [
        event(number // len(SYMBOLS), symbol=point.symbol, price=str(point.price))
        for number, point in enumerate(sent)
    ]


def grows_by(count: int) -> None:
    before = SymbolAverage.objects.count()
    wait_until(lambda: SymbolAverage.objects.count() >= before + count)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_group_grows_to_three_and_shrinks_to_one_under_load(settings: Settings, protocol: str) -> None:
    settings.KAFKA_GROUP_PROTOCOL = protocol
    with load() as sent, running(consumer()):
        grows_by(200)
        with ExitStack() as others:
            for _ in range(2):
                others.enter_context(running(consumer()))
                grows_by(500)
        grows_by(500)
    with running(consumer()):
        wait_until(lambda: SymbolAverage.objects.count() == len(sent))
        wait_until(lambda: sum(committed().values()) == len(sent))
    assert_averages_right(events_of(sent))


@pytest.mark.parametrize("changes", [("classic", "consumer"), ("consumer", "classic")])
def test_group_changes_its_protocol_one_by_one_under_load(
    settings: Settings, changes: tuple[str, str]
) -> None:
    with load() as sent, ExitStack() as old:
        settings.KAFKA_GROUP_PROTOCOL = changes[0]
        old.enter_context(running(consumer()))
        grows_by(100)
        settings.KAFKA_GROUP_PROTOCOL = changes[1]
        with running(consumer()):
            grows_by(100)
            old.close()
            grows_by(200)
    with running(consumer()):
        wait_until(lambda: sum(committed().values()) == len(sent))
    assert_averages_right(events_of(sent))


def test_consumer_that_is_stopped_in_the_middle_has_stored_what_it_committed() -> None:
    with load() as sent:
        for _ in range(3):
            loop = RunningLoop(consumer()).start()
            grows_by(100)
            loop.stop()
            assert sum(max(offset, 0) for offset in committed().values()) == SymbolAverage.objects.count()
    with running(consumer()):
        wait_until(lambda: SymbolAverage.objects.count() == len(sent))
