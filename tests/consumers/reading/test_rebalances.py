"""A model of a group: partitions change hands at any moment, batches come again, and zombies write.

Kafka is played here, so that hypothesis decides what happens; the stores and PostgreSQL are real.
"""

from dataclasses import dataclass, field

import pytest
from django.db import connection
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from prices.publishing.events import PriceEvent
from tests.consumers.samples import EventStore, assert_averages_right, event
from tests.examples import examples

pytestmark = pytest.mark.django_db(transaction=True)
PARTITIONS = {0: ("SIM-A", "SIM-B"), 1: ("SIM-C",)}
MEMBERS = range(3)


def event_at(when: int, symbol: str) -> PriceEvent:
    return event(when, symbol=symbol, price=str(when * 7 % 11 + 1))


@dataclass
class Partition:
    """A log, what is committed of it, and who reads it from where."""

    log: list[PriceEvent] = field(default_factory=list)
    committed: int = 0
    owner: int = 0
    position: int = 0


class Group(RuleBasedStateMachine):
    """Each rule is something that happens to a group; after each the table must obey the definition."""

    def __init__(self) -> None:
        super().__init__()
        with connection.cursor() as cursor:
            cursor.execute("TRUNCATE symbol_averages")
        self.stores = {member: EventStore() for member in MEMBERS}
        self.partitions = {number: Partition() for number in PARTITIONS}
        self.stored: dict[PriceEvent, None] = {}
        self.newest = 0
        for number, symbols in PARTITIONS.items():
            first = [event_at(when, symbol) for when in range(0, 24, 3) for symbol in symbols]
            self.partitions[number].log += first
            self.newest = 24
            self.consume(number, most=len(first), commits=True)

    def teardown(self) -> None:
        for store in self.stores.values():
            store.close()

    @rule(
        number=st.sampled_from(sorted(PARTITIONS)),
        steps=st.lists(st.integers(-12, 3), min_size=6, max_size=30),
        data=st.data(),
    )
    def publish(self, number: int, steps: list[int], data: st.DataObject) -> None:
        """Events arrive: newer ones, late ones, and ones that were there before."""
        for step in steps:
            self.newest = max(self.newest, self.newest + step)
            when = max(self.newest + min(step, 0), 0)
            symbol = data.draw(st.sampled_from(PARTITIONS[number]))
            self.partitions[number].log.append(event_at(when, symbol))

    @rule(number=st.sampled_from(sorted(PARTITIONS)), most=st.integers(3, 20), commits=st.booleans())
    def consume(self, number: int, most: int, commits: bool) -> None:
        """The owner writes what comes next, and its commit may get lost."""
        partition = self.partitions[number]
        batch = partition.log[partition.position : partition.position + most]
        self._write(partition.owner, batch)
        partition.position += len(batch)
        if commits:
            partition.committed = partition.position

    @rule(number=st.sampled_from(sorted(PARTITIONS)), to=st.sampled_from(MEMBERS))
    def rebalance(self, number: int, to: int) -> None:
        """A partition goes to a member that begins at what is committed; both forget what they knew."""
        partition = self.partitions[number]
        for member in (partition.owner, to):
            self.stores[member].invalidate()
        partition.owner, partition.position = to, partition.committed

    @rule(number=st.sampled_from(sorted(PARTITIONS)), member=st.sampled_from(MEMBERS), data=st.data())
    @precondition(lambda self: any(partition.log for partition in self.partitions.values()))
    def zombie(self, number: int, member: int, data: st.DataObject) -> None:
        """A member that was stopped writes what it had read, with what it remembers of then."""
        log = self.partitions[number].log
        first = data.draw(st.integers(0, len(log)))
        self._write(member, log[first : first + 4])

    @rule(member=st.sampled_from(MEMBERS))
    def crash(self, member: int) -> None:
        """A member dies, and another process takes its place."""
        self.stores[member].close()
        self.stores[member] = EventStore()
        for partition in self.partitions.values():
            if partition.owner == member:
                partition.position = partition.committed

    @invariant()
    def table_obeys_the_definition(self) -> None:
        assert_averages_right(self.stored)

    def _write(self, member: int, batch: list[PriceEvent]) -> None:
        self.stores[member].write(batch)
        self.stored |= dict.fromkeys(batch)


TestGroup = pytest.mark.hypothesis(Group.TestCase)
TestGroup.settings = settings(
    max_examples=examples(40),
    stateful_step_count=40,
)
