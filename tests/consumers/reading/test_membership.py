"""A consumer that is on its way into its group for too long is made anew; one that waits its turn is not."""

import json
from collections import Counter
from contextlib import ExitStack

import pytest
from pytest_django import Settings

from consumers.reading import membership
from consumers.reading.membership import OUTSIDE_S, STATISTICS_INTERVAL_S, MembershipWatch
from tests.consumers.running import Recorder, RunningLoop, send
from tests.logged import events_logged
from tests.waiting import wait_until


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def statistics(state: str, join_state: str, *, rebalances: int = 1, source: str = "learned") -> str:
    return json.dumps(
        {
            "brokers": {"kafka/1": {"source": source}},
            "cgrp": {"state": state, "join_state": join_state, "rebalance_cnt": rebalances},
        }
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> MembershipWatch:
    return MembershipWatch(clock=clock)


def pass_time(watch: MembershipWatch, clock: Clock, told: str, *, until_s: float = OUTSIDE_S) -> None:
    """Let librdkafka tell the same every five seconds."""
    for _ in range(int(until_s / STATISTICS_INTERVAL_S)):
        clock.now += STATISTICS_INTERVAL_S
        watch.note(told, kafka_answers=True)


@pytest.mark.parametrize(
    ("protocol", "states"),
    [
        ("classic", ("wait-coord", "init")),
        ("classic", ("up", "wait-join")),
        ("consumer", ("wait-coord", "init")),
    ],
)
def test_member_that_never_settles_is_lost(
    watch: MembershipWatch, clock: Clock, settings: Settings, states: tuple[str, str], protocol: str
) -> None:
    settings.KAFKA_GROUP_PROTOCOL = protocol
    watch.note(statistics(*states), kafka_answers=True)
    pass_time(watch, clock, statistics(*states), until_s=OUTSIDE_S - STATISTICS_INTERVAL_S)
    assert not watch.is_lost()
    pass_time(watch, clock, statistics(*states), until_s=STATISTICS_INTERVAL_S)
    assert watch.is_lost()
    assert watch.state == ", ".join(states)


@pytest.mark.parametrize("source", ["logical", "internal"])
def test_consumer_that_knows_no_broker_is_lost_at_once(watch: MembershipWatch, source: str) -> None:
    """As after a shutdown of Kafka (tests/test_lost_brokers.py); that Kafka is back it cannot see."""
    watch.note(statistics("query-coord", "steady", source=source), kafka_answers=False)
    assert watch.is_lost()
    assert watch.state == "query-coord, steady, no brokers known"
    watch.begin()
    assert not watch.is_lost()
    watch.note(statistics("query-coord", "init", source="configured"), kafka_answers=False)
    assert not watch.is_lost()


def test_settled_member_is_not_lost(watch: MembershipWatch, clock: Clock) -> None:
    pass_time(watch, clock, statistics("up", "wait-join"))
    pass_time(watch, clock, statistics("up", "steady"))
    assert not watch.is_lost()


def test_time_without_kafka_does_not_count(watch: MembershipWatch, clock: Clock) -> None:
    told = statistics("wait-coord", "init")
    pass_time(watch, clock, told)
    watch.note(told, kafka_answers=False)
    pass_time(watch, clock, told)
    assert not watch.is_lost()


def test_time_in_which_nothing_was_told_does_not_count(watch: MembershipWatch, clock: Clock) -> None:
    """As while what nobody has read is stored; what was told meanwhile comes at once after it."""
    told = statistics("up", "wait-join")
    watch.note(told, kafka_answers=True)
    clock.now += 3_600
    assert not watch.is_lost()
    for _ in range(720):
        watch.note(told, kafka_answers=True)
    assert not watch.is_lost()


def test_one_rebalance_after_the_other_is_no_loss(watch: MembershipWatch, clock: Clock) -> None:
    for number in range(40):
        pass_time(watch, clock, statistics("up", "wait-join", rebalances=number), until_s=20)
    assert not watch.is_lost()


def test_new_consumer_begins_anew(watch: MembershipWatch, clock: Clock) -> None:
    pass_time(watch, clock, statistics("wait-coord", "init"), until_s=2 * OUTSIDE_S)
    assert watch.is_lost()
    watch.begin()
    assert not watch.is_lost()


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have librdkafka tell how it stands ten times a second."""
    plain = membership.configuration
    monkeypatch.setattr(
        "consumers.reading.membership.configuration",
        lambda **told: {**plain(**told), "statistics.interval.ms": 100},
    )


@pytest.mark.usefixtures("topic", "heartbeats", "often")
def test_consumer_that_has_joined_nothing_is_made_anew(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where librdkafka came back from an outage and joined no group, which unsubscribing plays."""
    # Also what a join may take.
    monkeypatch.setattr(membership, "OUTSIDE_S", 4.0)
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
    assert events_logged(caplog)["membership.lost"] >= 1


@pytest.mark.usefixtures("topic", "heartbeats", "often")
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_member_for_whom_no_partition_is_left_is_settled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, settings: Settings, protocol: str
) -> None:
    settings.KAFKA_GROUP_PROTOCOL = protocol
    settled: Counter[int] = Counter()
    note = MembershipWatch.note

    def count(watch: MembershipWatch, statistics: str, *, kafka_answers: bool) -> None:
        note(watch, statistics, kafka_answers=kafka_answers)
        settled[id(watch)] = 0 if watch._outside_since else settled[id(watch)] + 1

    monkeypatch.setattr(MembershipWatch, "note", count)
    # One more than the topic has partitions.
    members = [RunningLoop(Recorder()) for _ in range(4)]
    with ExitStack() as running:
        for member in members:
            running.callback(member.start().stop)
        # Not of a loop of the test before, whose closing may have a last word.
        watches = [id(member.membership) for member in members]
        wait_until(lambda: all(settled[watch] >= 10 for watch in watches))
    assert events_logged(caplog)["membership.lost"] == 0
