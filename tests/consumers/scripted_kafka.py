"""Kafka played: so that a test decides what happens within which call of the consumer.

The order of events in which an offset could run ahead of the store takes a rebalance in the middle of a call
that returns messages of before: the real one does that once in a blue moon.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # not in __all__
    ClusterMetadata,
    PartitionMetadata,
    TopicMetadata,
)

TOPIC = "played"
Callback = Callable[[Any, list[TopicPartition]], None]


@dataclass(frozen=True)
class Rebalance:
    """What happens within one call of `consume`, after it has collected messages: first these partitions are
    revoked or lost, then others (or the same) assigned.
    """

    revoked: frozenset[int] = frozenset()
    lost: frozenset[int] = frozenset()
    assigned: frozenset[int] = frozenset()


@dataclass
class ScriptedKafka:
    """A topic whose partitions have `length` messages each, and the only consumer of a group.

    `rebalances` come one a call of `consume`; None is a call without. `on_commit` is called with each
    partition and offset that is committed.
    """

    length: int
    rebalances: list[Rebalance | None]
    on_commit: Callable[[int, int], None]
    committed_offsets: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    positions: dict[int, int] = field(default_factory=dict)
    _metadata: dict[int, str] = field(default_factory=dict)

    def subscribe(
        self, topics: list[str], *, on_assign: Callback, on_revoke: Callback, on_lost: Callback
    ) -> None:
        self._on_assign, self._on_revoke, self._on_lost = on_assign, on_revoke, on_lost

    def consume(self, count: int, timeout: float) -> list[Message]:
        messages = self._collect(count)
        rebalance = self.rebalances.pop(0) if self.rebalances else None
        if rebalance is not None:
            self._give_up(rebalance.revoked, self._on_revoke)
            self._give_up(rebalance.lost, self._on_lost)
            added = rebalance.assigned - set(self.positions)
            if added:
                self._on_assign(self, partitions_of(added))
        return messages

    def incremental_assign(self, positions: Sequence[TopicPartition]) -> None:
        for each in positions:
            self.positions[each.partition] = max(each.offset, 0)

    def seek(self, position: TopicPartition) -> None:
        if position.partition not in self.positions:
            raise KafkaException(KafkaError(KafkaError._STATE))
        self.positions[position.partition] = position.offset

    def commit(self, *, offsets: Sequence[TopicPartition], asynchronous: bool) -> None:
        for each in offsets:
            self.committed_offsets[each.partition] = each.offset
            self._metadata[each.partition] = each.metadata or ""
            self.on_commit(each.partition, each.offset)

    def committed(self, partitions: Sequence[TopicPartition], timeout: float) -> list[TopicPartition]:
        return [
            TopicPartition(
                TOPIC, each.partition, self._offset_of(each), metadata=self._metadata.get(each.partition, "")
            )
            for each in partitions
        ]

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float) -> tuple[int, int]:
        return 0, self.length

    def close(self) -> None:
        self._give_up(frozenset(self.positions), self._on_revoke)

    def _offset_of(self, partition: TopicPartition) -> int:
        return self.committed_offsets.get(partition.partition, -1001)

    def _collect(self, count: int) -> list[Message]:
        messages: list[Message] = []
        for partition, position in self.positions.items():
            end = min(position + count - len(messages), self.length)
            messages += [
                Message(topic=TOPIC, partition=partition, offset=offset, value=b"%d" % offset)
                for offset in range(position, end)
            ]
            self.positions[partition] = end
        return messages

    def _give_up(self, partitions: frozenset[int], callback: Callback) -> None:
        owned = partitions & set(self.positions)
        if owned:
            callback(self, partitions_of(owned))
            for partition in owned:
                self.positions.pop(partition, None)


def partitions_of(numbers: frozenset[int]) -> list[TopicPartition]:
    return [TopicPartition(TOPIC, number) for number in sorted(numbers)]


class ScriptedAdmin:
    """A client beside the consumer, which must not be asked for the topic in its own callbacks."""

    def __init__(self, kafka: ScriptedKafka) -> None:
        self._kafka = kafka

    def list_topics(self, topic: str, timeout: float) -> ClusterMetadata:
        metadata, played = ClusterMetadata(), TopicMetadata()
        metadata.topics = {topic: played}
        played.partitions = dict.fromkeys(self._kafka.committed_offsets, PartitionMetadata())
        return metadata
