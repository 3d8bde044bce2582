"""An operator sets the group's offsets, or deletes the group or the topic: no average is over a hole."""

import logging
from collections.abc import Callable

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from pytest_django import Settings

from consumers.averages.store import AverageStore
from consumers.handler import AverageHandler
from consumers.reading.group import LogTrimmedError, OffsetReset
from consumers.reading.lag import read_lag
from consumers.reading.watches import TopicReplacedError
from prices.models import SymbolAverage
from prices.publishing.kafka_clients import make_admin
from tests.consumers.running import RunningLoop, committed, make_topic_anew, running
from tests.consumers.samples import assert_averages_right, event, points_of, produce
from tests.consumers.unchanging import unchanging_rows
from tests.logged import events_logged
from tests.waiting import wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("topic", "heartbeats")]
SYMBOLS = ["SIM-A", "SIM-B", "SIM-C", "SIM-D"]


def handler() -> AverageHandler:
    return AverageHandler(AverageStore())


def produce_rounds(first: int, last: int) -> None:
    """Store and send a point of each symbol for each number."""
    for number in range(first, last):
        produce(points_of(number, dict.fromkeys(SYMBOLS, str(number + 1))))


def assert_rounds_right(count: int) -> None:
    assert_averages_right(
        event(number, symbol=symbol, price=str(number + 1)) for number in range(count) for symbol in SYMBOLS
    )


def consume(rounds: int, *, reset: OffsetReset | None = None) -> None:
    """Run a consumer until it has stored so many rounds, and committed all that Kafka has."""
    with running(handler(), reset=reset):
        wait_until(lambda: SymbolAverage.objects.count() == rounds * len(SYMBOLS))
        wait_until(lambda: not any(each.messages for each in read_lag()))


def set_offsets(topic: str, offset_of: Callable[[int, int], int]) -> None:
    """Set the offset of each partition by where it ends, as `kafka-consumer-groups --reset-offsets` does."""
    positions = [
        TopicPartition(topic, each.partition, offset_of(each.partition, each.end)) for each in read_lag()
    ]
    request = [ConsumerGroupTopicPartitions(topic, positions)]

    def is_set() -> bool:
        try:
            make_admin_and(lambda admin: admin.alter_consumer_group_offsets(request)[topic].result(10))
        except KafkaException:
            # The group still has the member that has left just now.
            return False
        return True

    wait_until(is_set)


def make_admin_and(ask: Callable[..., object]) -> None:
    # Held as long as it is asked: a client that nobody holds answers nothing.
    admin = make_admin()
    ask(admin)


def test_offsets_set_to_the_end_leave_nothing_out(topic: str, caplog: pytest.LogCaptureFixture) -> None:
    produce_rounds(0, 6)
    consume(6)
    produce_rounds(6, 12)
    set_offsets(topic, lambda _, end: end)
    produce_rounds(12, 20)
    with unchanging_rows(), caplog.at_level(logging.INFO):
        consume(20)
    logged = events_logged(caplog)
    assert (logged["offsets.moved"], logged["batch.refused"]) == (1, 0)
    assert_rounds_right(20)
    caplog.clear()
    produce_rounds(20, 21)
    consume(21)
    assert events_logged(caplog)["offsets.moved"] == 0


def test_offsets_set_to_the_beginning_double_nothing(topic: str) -> None:
    produce_rounds(0, 12)
    consume(12)
    set_offsets(topic, lambda _, __: 0)
    with unchanging_rows():
        consume(12)
    assert_rounds_right(12)


def test_group_that_is_deleted_begins_at_the_oldest_message(
    topic: str, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    produce_rounds(0, 6)
    consume(6)
    produce_rounds(6, 9)

    def is_deleted() -> bool:
        group = settings.KAFKA_CONSUMER_GROUP
        try:
            make_admin_and(lambda admin: admin.delete_consumer_groups([group])[group].result(10))
        except KafkaException:
            return False
        return True

    wait_until(is_deleted)
    with unchanging_rows(), caplog.at_level(logging.INFO):
        consume(9)
    assert events_logged(caplog)["offsets.missing"] == 1
    assert_rounds_right(9)


def test_topic_made_anew_while_the_consumer_is_stopped_leaves_nothing_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Kafka forgets a topic's offsets with it: what was not consumed is in price_points alone."""
    produce_rounds(0, 6)
    consume(6)
    produce_rounds(6, 12)
    make_topic_anew()
    wait_until(lambda: set(committed().values()) == {-1001})
    produce_rounds(12, 20)
    with unchanging_rows(), caplog.at_level(logging.INFO):
        consume(20)
    assert events_logged(caplog)["offsets.missing"] == 1
    assert_rounds_right(20)


@pytest.mark.parametrize("reset", OffsetReset)
def test_topic_made_anew_under_a_running_consumer_is_gone_on_in_without_a_hole(reset: OffsetReset) -> None:
    produce_rounds(0, 6)
    loop = RunningLoop(handler()).start()
    wait_until(lambda: SymbolAverage.objects.count() == 6 * len(SYMBOLS))
    with unchanging_rows():
        make_topic_anew()
        produce_rounds(6, 9)
        with pytest.raises((TopicReplacedError, LogTrimmedError), match=r"is not the one|made anew"):
            loop.join()
        consume(9, reset=reset)
    assert_rounds_right(9)
