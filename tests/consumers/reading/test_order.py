"""Whatever comes in between, no offset is committed ahead of what is stored, and nothing is left out."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumers.reading import group, loop, membership, offsets, pipeline
from consumers.reading.loop import ConsumerLoop
from consumers.reading.watches import TopicWatch
from tests.consumers.running import Recorder
from tests.consumers.scripted_kafka import Rebalance, ScriptedAdmin, ScriptedKafka

LENGTH = 40
PARTITIONS = 2
ALL = frozenset(range(PARTITIONS))


class Played:
    """A loop on a Kafka that is played, turn by turn, whose handler refuses by a list."""

    def __init__(self, rebalances: list[Rebalance | None], refusals: list[bool]) -> None:
        self.handler = Recorder(lambda _: refusals.pop(0) if refusals else False)
        self.stored: dict[int, set[int]] = defaultdict(set)
        self.handler.on_write = self._note
        self.kafka = ScriptedKafka(LENGTH, rebalances, self._check)
        admin: Any = ScriptedAdmin(self.kafka)
        membership.make_consumer = lambda _options: self.kafka  # type: ignore[attr-defined,assignment,return-value]
        group.make_admin = lambda _options=None: admin  # type: ignore[attr-defined,assignment]
        self.loop = ConsumerLoop(self.handler)

    def run(self, *, turns: int) -> None:
        left = iter(range(turns))
        turn = self.loop._turn

        def turn_or_stop() -> None:
            turn()
            if next(left, None) is None:
                self.loop.stop()

        self.loop._turn = turn_or_stop  # type: ignore[method-assign]
        self.loop.run()

    def _note(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self.stored[message.partition() or 0].add(message.offset() or 0)

    def _check(self, partition: int, offset: int) -> None:
        """Raise where an offset is committed of which not all before is stored."""
        missing = set(range(offset)) - self.stored[partition]
        assert not missing, f"committed {offset} of {partition} without {sorted(missing)}"


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch, heartbeats: None) -> None:
    """Let writes and recoveries happen where they begin, and nothing be waited for."""

    def run(work: Callable[[], Any], *, name: str) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - as a thread would keep it
            future.set_exception(error)
        else:
            future.set_result(result)
        return future

    for module in (pipeline, group):
        monkeypatch.setattr(module, "run_in_thread", run)
    monkeypatch.setattr(pipeline, "MAX_READ", 7)
    monkeypatch.setattr(pipeline, "FIRST_RETRY_S", 0.0)
    monkeypatch.setattr(pipeline, "LAST_RETRY_S", 0.0)
    monkeypatch.setattr(offsets, "COMMIT_INTERVAL_S", 0.0)
    monkeypatch.setattr(loop, "IDLE_S", 0.0)
    monkeypatch.setattr(membership, "make_consumer", None)
    monkeypatch.setattr(group, "make_admin", None)
    monkeypatch.setattr(TopicWatch, "learn", lambda _: "an-id")
    monkeypatch.setattr(TopicWatch, "look", lambda _: None)


@pytest.mark.usefixtures("at_once")
def test_offset_stays_behind_the_store() -> None:
    """A partition is lost within a call that returns messages of it, after the handler has refused earlier
    ones, and comes back later.
    """
    one = frozenset({0})
    given = [Rebalance(assigned=one), None, None, None, Rebalance(lost=one), None, Rebalance(assigned=ALL)]
    played = Played(given, [False, True])
    played.run(turns=120)
    assert played.kafka.committed_offsets == dict.fromkeys(ALL, LENGTH)


some = st.frozensets(st.sampled_from(sorted(ALL)))
rebalances = st.one_of(st.none(), st.builds(Rebalance, revoked=some, lost=some, assigned=some))


@given(st.lists(rebalances, max_size=30), st.lists(st.booleans(), max_size=10))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.usefixtures("at_once")
def test_offsets_stay_behind_the_store_whatever_happens(
    rebalances: list[Rebalance | None], refusals: list[bool]
) -> None:
    played = Played([*rebalances, None, Rebalance(assigned=ALL)], refusals)
    played.run(turns=120)
    assert played.kafka.committed_offsets == dict.fromkeys(ALL, LENGTH)
    assert played.stored == {number: set(range(LENGTH)) for number in ALL}
