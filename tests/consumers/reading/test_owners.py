"""A partition that nobody of the group has is noticed, and one that another member has is none."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupState, KafkaException
from django.conf import settings

from consumers.reading import owners
from consumers.reading.owners import OwnerWatch
from prices.publishing.kafka_clients import make_admin, make_consumer
from tests.consumers.running import Recorder, RunningLoop, running, send
from tests.logged import events_logged
from tests.waiting import wait_until

PARTITIONS = (0, 1, 2)
pytestmark = pytest.mark.usefixtures("topic", "heartbeats")


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Looker:
    """A watch whose clock goes by hand; who looks has no partition and is no member."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.watch = OwnerWatch(clock=self.clock)
        self.consumer = make_consumer({})

    def look(self, *, own: tuple[int, ...] = ()) -> list[int]:
        """Return what is unowned after the next answer, 10 s later."""
        self.clock.now += 10
        # The first asks, and the one after the answer takes it.
        self.look_once(own)
        asked = self.watch._asked
        assert asked is not None
        wait_until(asked.done)
        return self.look_once(own)

    def look_once(self, own: tuple[int, ...] = ()) -> list[int]:
        return self.watch.look(self.consumer, PARTITIONS, own=own)


@pytest.fixture
def looker() -> Iterator[Looker]:
    # A new Kafka tells nothing of groups until it has a place for their offsets.
    wait_until(can_tell)
    made = Looker()
    yield made
    made.consumer.close()


def can_tell() -> bool:
    try:
        members_at_rest()
    except KafkaException:
        return False
    return True


def members_at_rest() -> int:
    group, admin = settings.KAFKA_CONSUMER_GROUP, make_admin()
    described = admin.describe_consumer_groups([group])[group].result(10)
    return len(described.members) if described.state is ConsumerGroupState.STABLE else 0


def test_partitions_of_no_member_are_named_after_half_a_minute(looker: Looker) -> None:
    # The first answer is of ten seconds from now.
    assert [looker.look() for _ in range(3)] == [[], [], []]
    looker.clock.now += 9
    assert looker.look_once() == []
    looker.clock.now += 1
    assert looker.look_once() == [0, 1, 2]
    # One that is had after all is so no more.
    assert looker.look(own=(1,)) == [0, 2]


def test_what_is_known_is_forgotten_with_the_member(looker: Looker) -> None:
    for _ in range(4):
        looker.look()
    looker.watch.forget()
    assert looker.look() == []


def test_partitions_of_another_member_are_owned(looker: Looker) -> None:
    with running(Recorder()):
        wait_until(lambda: members_at_rest() == 1)
        assert [looker.look() for _ in range(5)] == [[]] * 5
    # It left, so nobody has them.
    wait_until(lambda: looker.look() == [0, 1, 2])


def test_consumer_that_has_lost_its_membership_joins_anew(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where librdkafka came back from an outage and was a member of nothing, which unsubscribing plays."""
    monkeypatch.setattr(owners, "ASK_INTERVAL_S", 0.2)
    # Also what a join may take.
    monkeypatch.setattr(owners, "UNOWNED_S", 4.0)
    handler = Recorder()
    send([b"1"])
    loop = RunningLoop(handler).start()
    try:
        wait_until(lambda: handler.values == [b"1"])
        loop.consumer.unsubscribe()
        send([b"2"])
        wait_until(lambda: handler.values == [b"1", b"2"])
    finally:
        loop.stop()
    assert events_logged(caplog)["partitions.unowned"] >= 1


def test_member_for_whom_no_partition_is_left_stays(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(owners, "ASK_INTERVAL_S", 0.05)
    with ExitStack() as loops:
        members = [loops.enter_context(running(Recorder())) for _ in range(len(PARTITIONS) + 1)]
        wait_until(lambda: members_at_rest() == len(members))
        takes: Counter[int] = Counter()
        take = OwnerWatch._take

        def count(watch: OwnerWatch, *answer: Any) -> None:
            take(watch, *answer)
            takes[id(watch)] += 1

        monkeypatch.setattr(OwnerWatch, "_take", count)
        # The least moment without an owner would be told now.
        monkeypatch.setattr(owners, "UNOWNED_S", 0.0)
        wait_until(lambda: len(takes) == len(members) and min(takes.values()) >= 5)
        monkeypatch.undo()
    assert events_logged(caplog)["partitions.unowned"] == 0
