"""A consumer that is on its way into its group for too long is made anew; one that waits its turn is not."""

import json
from collections import Counter
from contextlib import ExitStack

import pytest
from pytest_django import Settings

from consumers.reading import group, stall
from consumers.reading.stall import OUTSIDE_S, MembershipWatch
from tests.consumers.running import Recorder, RunningLoop, running, send
from tests.logged import events_logged
from tests.waiting import wait_until


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def statistics(state: str, join_state: str) -> str:
    return json.dumps({"cgrp": {"state": state, "join_state": join_state, "assignment_size": 0}})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> MembershipWatch:
    return MembershipWatch(clock=clock)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
@pytest.mark.parametrize("states", [("wait-coord", "init"), ("up", "wait-join")])
def test_member_that_never_settles_is_lost(
    watch: MembershipWatch, clock: Clock, settings: Settings, states: tuple[str, str], protocol: str
) -> None:
    settings.KAFKA_GROUP_PROTOCOL = protocol
    watch.note(statistics(*states), kafka_answers=True)
    clock.now += OUTSIDE_S - 1
    watch.note(statistics(*states), kafka_answers=True)
    assert not watch.is_lost()
    clock.now += 1
    assert watch.is_lost()
    assert watch.state == ", ".join(states)


def test_settled_member_is_not_lost(watch: MembershipWatch, clock: Clock) -> None:
    watch.note(statistics("up", "wait-join"), kafka_answers=True)
    clock.now += OUTSIDE_S - 1
    watch.note(statistics("up", "steady"), kafka_answers=True)
    clock.now += OUTSIDE_S
    assert not watch.is_lost()


def test_time_without_kafka_does_not_count(watch: MembershipWatch, clock: Clock) -> None:
    for kafka_answers in (False, True):
        watch.note(statistics("wait-coord", "init"), kafka_answers=kafka_answers)
        clock.now += OUTSIDE_S - 1
    assert not watch.is_lost()


def test_new_consumer_begins_anew(watch: MembershipWatch, clock: Clock) -> None:
    watch.note(statistics("wait-coord", "init"), kafka_answers=True)
    clock.now += OUTSIDE_S
    watch.begin()
    assert not watch.is_lost()


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have librdkafka tell how it stands ten times a second."""
    plain = group.configuration
    monkeypatch.setattr(
        "consumers.reading.loop.configuration",
        lambda **told: {**plain(**told), "statistics.interval.ms": 100},
    )


@pytest.mark.usefixtures("topic", "heartbeats", "often")
def test_consumer_that_has_joined_nothing_is_made_anew(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where librdkafka came back from an outage and joined no group, which unsubscribing plays."""
    # Also what a join may take.
    monkeypatch.setattr(stall, "OUTSIDE_S", 4.0)
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
    with ExitStack() as loops:
        # One more than the topic has partitions.
        members = [loops.enter_context(running(Recorder())) for _ in range(4)]
        wait_until(lambda: len(settled) == len(members) and min(settled.values()) >= 10)
    assert events_logged(caplog)["membership.lost"] == 0
