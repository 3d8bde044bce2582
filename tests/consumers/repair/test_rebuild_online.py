"""A rebuild beside consumers at work: in order, late and twice, and by what a consumer remembers."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from itertools import count

import pytest

from consumers.averages.connection import connect
from consumers.averages.statements import lock_symbols
from consumers.averages.store import AverageStore
from consumers.handler import AverageHandler
from consumers.repair import rebuild
from consumers.repair.rebuild import Rebuilt, rebuild_averages
from consumers.repair.verify import Verdict, verify_averages
from prices.models import PricePoint, SymbolAverage
from prices.publishing.events import PriceEvent
from tests.consumers.running import messages_left, running
from tests.consumers.samples import (
    EventStore,
    assert_averages_right,
    event,
    events,
    point,
    points_of,
    produce,
)
from tests.waiting import wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("topic")]
SYMBOLS = [f"SIM-{letter}" for letter in "ABCDEF"]


class RebuildLoop:
    """Rebuilds one after the other in a thread, a few rows at once."""

    def __init__(self) -> None:
        self.done: list[Rebuilt] = []
        self.error: BaseException | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(20)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error

    def wait_for_another(self) -> None:
        """Wait until a rebuild has ended that began after this call."""
        wanted = len(self.done) + 2
        wait_until(lambda: len(self.done) >= wanted or self.error)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self.done.append(rebuild_averages())
        except Exception as error:  # noqa: BLE001 - raised again in the test's own thread
            self.error = error


@contextmanager
def rebuilding(rows: int) -> Iterator[RebuildLoop]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FIRST_ROWS", "LEAST_ROWS", "MOST_ROWS"):
            patch.setattr(rebuild, name, rows)
        loop = RebuildLoop()
        try:
            yield loop
        finally:
            loop.stop()


def send_rounds(numbers: Iterator[int], *, rounds: int, chance: random.Random) -> None:
    """Send a point of each symbol in each round; some wait for the next round, some go twice."""
    held: list[PricePoint] = []
    for number in (next(numbers) for _ in range(rounds)):
        points = points_of(number, {symbol: str(chance.randint(1, 10**6) / 100) for symbol in SYMBOLS})
        late, twice = chance.choice(points), chance.choice(points)
        produce([*held, *(each for each in points if each != late), twice])
        held = [late]
    produce(held)


def all_consumed() -> bool:
    return SymbolAverage.objects.count() == PricePoint.objects.count() and messages_left(wait_s=0) == 0


def assert_all_right() -> None:
    found = {verdict: number for verdict, number in verify_averages().counts.items() if number}
    assert found == {Verdict.RIGHT: PricePoint.objects.count()}


def damage(chance: random.Random) -> None:
    """Lose a few rows, and alter a few, as nobody should."""
    ids = list(SymbolAverage.objects.values_list("event_id", flat=True))
    SymbolAverage.objects.filter(event_id__in=chance.sample(ids, 4)).delete()
    SymbolAverage.objects.filter(event_id__in=chance.sample(ids, 4)).update(price=Decimal(7))
    SymbolAverage.objects.filter(event_id__in=chance.sample(ids, 4), window_size=5).update(average=Decimal(7))


@pytest.mark.usefixtures("heartbeats")
def test_rebuilds_beside_a_consumer_leave_nothing_wrong() -> None:
    """The consumer's rows are right although rebuilds insert some of them first, and correct others."""
    numbers, chance = count(), random.Random(3)
    with running(AverageHandler(AverageStore())):
        send_rounds(numbers, rounds=1, chance=chance)
        # One that began beside rows of a rebuild would first make up for what is missing, as a rebuild.
        wait_until(all_consumed)
        with rebuilding(rows=7) as loop:
            send_rounds(numbers, rounds=15, chance=chance)
            for _ in range(3):
                damage(chance)
                send_rounds(numbers, rounds=5, chance=chance)
            loop.wait_for_another()
            send_rounds(numbers, rounds=15, chance=chance)
            wait_until(all_consumed)
    assert_all_right()
    assert sum(done.inserted for done in loop.done) > 0
    assert sum(done.corrected for done in loop.done) > 0


def test_rebuilds_beside_two_writers_leave_nothing_wrong(make_store: Callable[[], EventStore]) -> None:
    """Every point is there before its event: rebuilds and both writers put the same rows in."""
    stream = [
        event(number, symbol=symbol, price=str(number + 1)) for number in range(60) for symbol in SYMBOLS
    ]
    for number in range(60):
        points_of(number, dict.fromkeys(SYMBOLS, str(number + 1)))

    def write(store: EventStore, share: list[PriceEvent]) -> None:
        for first in range(0, len(share), 5):
            store.write(share[first : first + 5])
            store.write(share[max(first - 3, 0) : first + 1])

    shares = [[each for place, each in enumerate(stream) if place // 4 % 2 == part] for part in range(2)]
    writers = [threading.Thread(target=write, args=(make_store(), share)) for share in shares]
    with rebuilding(rows=3):
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(30)
    assert_averages_right(stream)


def test_consumer_that_remembers_another_price_uses_the_corrected_one(store: EventStore) -> None:
    """A correction changes neither the number of rows nor their ids: only the epoch tells."""
    prices = ["100", "101", "99", "102", "98"]
    for number, price in enumerate(prices):
        point(number, price=price)
    store.write([*events(prices[:4]), event(4, price="1")])
    assert rebuild_averages().corrected == 1
    store.write([event(5, price="103")])
    assert_averages_right(events([*prices, "103"]))


def test_other_symbols_are_not_waited_for() -> None:
    """A rebuild goes on while a consumer's batch of another symbol is being written."""
    point(0, symbol="SIM-B")
    with connect() as other, other.transaction(), other.cursor() as cursor:
        lock_symbols(cursor, ["SIM-A"])
        assert rebuild_averages().inserted == 1
