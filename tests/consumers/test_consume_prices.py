"""The real process on the real parts, ended, stopped and cut off in the middle of a run."""

import logging
import os
import random
import signal
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import TypeAlias

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection

from consumers.handler import AverageHandler
from consumers.lag import messages_left
from consumers.store import AverageStore
from consumers.verify import Verdict, verify_averages
from dev.pytest_services import Services
from prices.models import DeadLetter, PricePoint, SymbolAverage
from tests.consumers.processes import ConsumerProcess
from tests.consumers.running import commit, events_logged, running, send
from tests.consumers.samples import points_of, produce
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
SYMBOLS = [f"SIM-{letter}" for letter in "ABCDEFGH"]


StartConsumer: TypeAlias = Callable[[], ConsumerProcess]


@pytest.fixture
def start_consumer(transactional_db: None, topic: str, tmp_path: Path) -> Iterator[StartConsumer]:
    """Give a function that starts another process of the test's group."""
    started: list[ConsumerProcess] = []

    def start() -> ConsumerProcess:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(ConsumerProcess(folder))
        return started[-1]

    yield start
    for consumer in started:
        consumer.kill()


@pytest.fixture
def handler(transactional_db: None, topic: str, heartbeats: None) -> AverageHandler:
    """Give the handler of the real process, for a loop in this one."""
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


def end_backends() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'consume_prices' AND datname = current_database()"
        )


def test_killed_process_leaves_nothing_missing_and_nothing_wrong(start_consumer: StartConsumer) -> None:
    stream = Stream()
    killed = start_consumer()
    stream.send(5)
    wait_until(has_rows(16), timeout_s=20)
    stream.send(5)
    killed.kill()
    stream.send(5)
    consumer = start_consumer()
    stream.send(5)
    stream.finish()
    wait_until(all_stored, timeout_s=30)
    assert consumer.stop() == 0
    assert_verified()


def test_sigterm_stores_and_commits_what_was_read_and_ends_well(start_consumer: StartConsumer) -> None:
    stream = Stream()
    consumer = start_consumer()
    stream.send(3)
    stream.finish()
    wait_until(all_stored, timeout_s=20)
    assert consumer.stop() == 0
    assert messages_left(wait_s=0) == 0
    assert "consumer.stopped" in consumer.output


def test_process_that_slept_through_its_session_leaves_no_wrong_row(start_consumer: StartConsumer) -> None:
    """Its partitions go to another; it wakes with a part of the stream, gets its share, and leaves again."""
    stream = Stream()
    sleeper = start_consumer()
    stream.send(3)
    wait_until(has_rows(8), timeout_s=20)
    sleeper.signal(signal.SIGSTOP)
    other = start_consumer()
    stream.send(3)
    rows = SymbolAverage.objects.count()
    wait_until(has_rows(rows + 16), timeout_s=30)
    sleeper.signal(signal.SIGCONT)
    stream.send(3)
    wait_until(lambda: sleeper.output.count("partitions.assigned") >= 2, timeout_s=20)
    stream.send(3)
    assert sleeper.stop() == 0
    stream.send(3)
    stream.finish()
    wait_until(all_stored, timeout_s=20)
    wait_until(lambda: messages_left(wait_s=0) == 0, timeout_s=20)
    assert other.stop() == 0
    assert_verified()


def test_terminated_backends_are_survived(handler: AverageHandler) -> None:
    stream = Stream()
    with running(handler):
        for _ in range(5):
            stream.send(2)
            end_backends()
        stream.finish()
        wait_until(all_stored, timeout_s=20)
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
        wait_until(lambda: events_logged(caplog)["batch.held"] == 1)
        services.postgres.start()
        wait_until(all_stored)
    logged = events_logged(caplog)
    assert (logged["batch.held"], logged["batch.released"]) == (1, 1)
    assert_verified()


def test_poison_between_events_ends_in_dead_letters(handler: AverageHandler) -> None:
    stream = Stream()
    send([b"no json", b"{}", b"\xff", b"x" * 900_000])
    stream.send(3)
    send([b"NaN"])
    stream.finish()
    with running(handler):
        wait_until(all_stored)
        wait_until(lambda: DeadLetter.objects.count() == 5)
    assert_verified()


@pytest.mark.usefixtures("heartbeats", "transactional_db", "signal_handlers")
def test_trimmed_log_ends_the_command_with_what_to_do(topic: str) -> None:
    send([b"x"] * 8, partition=0)
    commit(3, partition=0)
    admin = AdminClient({"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS})
    for deleted in admin.delete_records([TopicPartition(topic, 0, 6)]).values():
        deleted.result(10)
    with pytest.raises(CommandError, match="has only offsets 6 to 8") as caught:
        call_command("consume_prices")
    assert caught.value.returncode == 1


def test_sigterm_while_kafka_hangs_ends_well(start_consumer: StartConsumer, services: Services) -> None:
    pid = services.kafka.pid
    Stream().send(1)
    consumer = start_consumer()
    wait_until(has_rows(7), timeout_s=20)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert consumer.stop() == 0
    finally:
        os.kill(pid, signal.SIGCONT)
