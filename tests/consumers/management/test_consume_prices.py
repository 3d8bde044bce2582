"""The real process on the real parts, ended, stopped and cut off in the middle of a run."""

import logging
import os
import random
import signal
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import chain, count
from pathlib import Path
from typing import TypeAlias

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from consumers.averages import store
from consumers.averages.store import AverageStore
from consumers.handler import AverageHandler
from consumers.repair.verify import Verdict, verify_averages
from dev.pytest_services import Services
from prices.heartbeat import heartbeat_path
from prices.maintenance.stopped_processes import NEEDS_OPERATOR
from prices.models import DeadLetter, PricePoint, SymbolAverage
from tests.consumers.locks import held_lock
from tests.consumers.poison import POISON
from tests.consumers.processes import ConsumerProcess
from tests.consumers.running import commit, committed, messages_left, running, send, send_parts, trim
from tests.consumers.samples import averages, message, points_of, produce
from tests.consumers.sessions import a_session_waits, end_sessions
from tests.consumers.stopped_backend import stopped_backends
from tests.logged import events_logged
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
SYMBOLS = [f"SIM-{letter}" for letter in "ABCDEFGH"]


StartConsumer: TypeAlias = Callable[..., ConsumerProcess]


@pytest.fixture
def start_consumer(transactional_db: None, topic: str, tmp_path: Path) -> Iterator[StartConsumer]:
    """Yield a function that starts another process of the test's group."""
    started: list[ConsumerProcess] = []

    def start(*options: str) -> ConsumerProcess:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(ConsumerProcess(folder, *options))
        return started[-1]

    yield start
    for consumer in started:
        consumer.kill()


@pytest.fixture
def handler(transactional_db: None, topic: str, heartbeats: None) -> AverageHandler:
    """Return the handler of the real process, for a loop in this one."""
    return AverageHandler(AverageStore())


@pytest.fixture
def signal_handlers() -> Iterator[None]:
    """Put back the signal handlers that the command sets."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, former in kept.items():
        signal.signal(number, former)


class Stream:
    """Points of eight symbols, sent in rounds; some late, some twice."""

    def __init__(self) -> None:
        self._numbers = count()
        self._random = random.Random(7)
        self._held_back: list[PricePoint] = []

    def send(self, rounds: int) -> None:
        """Store and send a point of each symbol in each round, with what the round before held back."""
        for _ in range(rounds):
            number = next(self._numbers)
            prices = [str(self._random.randint(1, 10**9) / 1000) for _ in SYMBOLS]
            points = points_of(number, dict(zip(SYMBOLS, prices, strict=True)))
            late = self._random.choice(points)
            twice = self._random.choice(points)
            produce([*self._held_back, *(each for each in points if each != late), twice])
            self._held_back = [late]

    def finish(self) -> None:
        """Send what is still held back."""
        produce(self._held_back)
        self._held_back = []


def has_rows(at_least: int) -> Callable[[], bool]:
    return lambda: SymbolAverage.objects.count() >= at_least


def all_stored() -> bool:
    return SymbolAverage.objects.count() == PricePoint.objects.count()


def assert_verified() -> None:
    verification = verify_averages()
    assert verification.note is None
    assert {verdict: number for verdict, number in verification.counts.items() if number} == {
        Verdict.RIGHT: PricePoint.objects.count()
    }
    call_command("verify_averages")


def test_killed_process_leaves_nothing_missing_and_nothing_wrong(start_consumer: StartConsumer) -> None:
    stream = Stream()
    killed = start_consumer()
    stream.send(5)
    wait_until(has_rows(16))
    stream.send(5)
    killed.kill()
    stream.send(5)
    consumer = start_consumer()
    stream.send(5)
    stream.finish()
    wait_until(all_stored)
    assert consumer.stop() == 0
    assert_verified()


def test_sigterm_stores_and_commits_what_was_read(start_consumer: StartConsumer) -> None:
    """It comes while a batch is being written."""
    consumer = start_consumer()
    wait_until(lambda: "partitions.assigned" in consumer.output)
    with held_lock(SYMBOLS[0]):
        produce(points_of(0, dict.fromkeys(SYMBOLS, "100")))
        wait_until(a_session_waits)
        consumer.signal(signal.SIGTERM)
        # Other symbols may have come in a batch before.
        assert not SymbolAverage.objects.filter(symbol=SYMBOLS[0]).exists()
    assert consumer.wait() == 0
    # Others may have come after the batch was begun: they are left for the next process.
    stored = SymbolAverage.objects.count()
    assert stored > 0
    assert sum(max(offset, 0) for offset in committed().values()) == stored
    assert "consumer.stopped" in consumer.output


def test_process_that_slept_through_its_session_leaves_no_wrong_row(start_consumer: StartConsumer) -> None:
    """Its partitions go to another; it wakes with a part of the stream, gets its share, and leaves again."""
    stream = Stream()
    sleeper = start_consumer()
    stream.send(3)
    wait_until(has_rows(8))
    sleeper.signal(signal.SIGSTOP)
    other = start_consumer()
    stream.send(3)
    rows = SymbolAverage.objects.count()
    wait_until(has_rows(rows + 16))
    sleeper.signal(signal.SIGCONT)
    stream.send(3)
    wait_until(lambda: sleeper.output.count("partitions.assigned") >= 2)
    stream.send(3)
    assert sleeper.stop() == 0
    stream.send(3)
    stream.finish()
    wait_until(all_stored)
    wait_until(lambda: messages_left(wait_s=0) == 0)
    assert other.stop() == 0
    assert_verified()


def test_terminated_backends_are_survived(handler: AverageHandler) -> None:
    stream = Stream()
    with running(handler):
        for _ in range(5):
            stream.send(2)
            end_sessions(timeout_ms=0)
        stream.finish()
        wait_until(all_stored)
    assert_verified()


def test_restarted_postgresql_is_waited_for_and_told_once(
    handler: AverageHandler, services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    stream = Stream()
    with running(handler):
        stream.send(2)
        stream.finish()
        wait_until(all_stored)
        points = points_of(100, dict.fromkeys(SYMBOLS, "100"))
        connection.close()
        services.postgres.stop()
        produce(points)
        wait_until(lambda: events_logged(caplog)["batch.refused"] == 1)
        services.postgres.start()
        wait_until(all_stored)
    logged = events_logged(caplog)
    assert (logged["batch.refused"], logged["batch.accepted"]) == (1, 1)
    assert_verified()


def test_every_poison_between_events_is_one_dead_letter_and_the_events_are_averaged(
    handler: AverageHandler,
) -> None:
    poison = [message(**each) for each in POISON.values()]
    sound = [message(number) for number in range(len(poison))]
    send_parts(*chain.from_iterable(zip(poison, sound, strict=True)))
    with running(handler):
        wait_until(lambda: SymbolAverage.objects.count() == len(sound))
        wait_until(lambda: DeadLetter.objects.count() == len(poison))
    letters = DeadLetter.objects.order_by("offset")
    assert [letter.offset for letter in letters] == [2 * number for number in range(len(poison))]
    for letter, sent in zip(letters, poison, strict=True):
        assert (as_bytes(letter.key), as_bytes(letter.value)) == (sent.key(), sent.value()), letter.reason
    assert averages() == [None] * 4 + [Decimal(100)] * (len(sound) - 4)


def as_bytes(value: bytes | memoryview | None) -> bytes | None:
    return None if value is None else bytes(value)


@pytest.mark.usefixtures("heartbeats", "transactional_db", "signal_handlers")
def test_trimmed_log_ends_the_command_with_what_to_do(topic: str) -> None:
    send([b"x"] * 8, partition=0)
    commit(3, partition=0)
    trim(0, before=6)
    with pytest.raises(CommandError, match="has only offsets 6 to 8") as caught:
        call_command("consume_prices")
    assert caught.value.returncode == NEEDS_OPERATOR


def test_command_begins_where_it_is_told_in_partitions_whose_position_is_gone(
    start_consumer: StartConsumer,
) -> None:
    send([b"x"] * 8, partition=0)
    commit(3, partition=0)
    trim(0, before=6)
    consumer = start_consumer("--from", "earliest")
    wait_until(lambda: DeadLetter.objects.count() == 2)
    wait_until(lambda: committed([0]) == {0: 8})
    assert consumer.stop() == 0
    assert "partition.begun_anew" in consumer.output


def test_unknown_beginning_is_wrong_usage(start_consumer: StartConsumer) -> None:
    consumer = start_consumer("--from", "yesterday")
    assert consumer.wait() == 2
    assert "invalid choice: 'yesterday'" in consumer.output


def test_sigterm_while_kafka_hangs_ends_well(start_consumer: StartConsumer, services: Services) -> None:
    pid = services.kafka.pid
    Stream().send(1)
    consumer = start_consumer()
    wait_until(has_rows(7))
    os.kill(pid, signal.SIGSTOP)
    try:
        assert consumer.stop() == 0
    finally:
        os.kill(pid, signal.SIGCONT)


def test_stopped_backend_is_left_and_its_batch_stored(
    handler: AverageHandler, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its locks stay until it goes on: the batch waits, the loop turns, and says so."""
    monkeypatch.setattr(store, "ANSWER_LIMIT_S", 0.5)
    caplog.set_level(logging.INFO)
    stream = Stream()
    with running(handler):
        stream.send(2)
        wait_until(has_rows(14))
        with stopped_backends():
            stream.send(2)
            stream.finish()
            wait_until(lambda: events_logged(caplog)["batch.refused"] == 1)
            remaining = heartbeat_path("consumer")
            remaining.unlink(missing_ok=True)
            wait_until(remaining.exists)
        wait_until(all_stored)
    assert_verified()


def test_sigterm_while_postgresql_hangs_ends_well(start_consumer: StartConsumer) -> None:
    stream = Stream()
    consumer = start_consumer()
    stream.send(2)
    wait_until(has_rows(14))
    with stopped_backends():
        stream.send(1)
        assert consumer.stop() == 0
    other = start_consumer()
    stream.finish()
    wait_until(all_stored)
    assert other.stop() == 0
    assert_verified()
