"""Offsets of what is stored, on their way to Kafka.

Never by librdkafka's synchronous commit: where Kafka is away, that waits until it is back, however
long it takes. An offset that is committed late, or never, only means that what is stored already is
read again.
"""

import time
from collections.abc import Collection, Iterable
from typing import cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from consumers.outage import Outage

COMMIT_INTERVAL_S = 0.2
# What is committed beside each offset: the id of the topic that it counts in.
_TOPIC = "topic="


class OffsetCommitter:
    """Commits the next offset of each partition that this consumer owns, a few times a second."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._metadata = ""
        self._owned: set[int] = set()
        self._stored: dict[int, int] = {}
        self._last_commit = 0.0
        self._refusal = Outage(began="offsets.refused", ended="offsets.accepted")

    def own(self, partitions: Collection[int], *, topic_id: str = "") -> None:
        """Take note of partitions that are this consumer's from now on, and of the id of their topic."""
        self._owned.update(partitions)
        self._metadata = f"{_TOPIC}{topic_id}" if topic_id else ""

    def disown(self, partitions: Collection[int]) -> None:
        """Forget partitions that are another consumer's now: its offsets must not be set back."""
        self._owned.difference_update(partitions)
        self._stored = {of: offset for of, offset in self._stored.items() if of in self._owned}

    def note_stored(self, messages: Iterable[Message]) -> None:
        """Take note of messages, each partition's in their order, whose rows are committed."""
        next_offsets = {cast(int, each.partition()): cast(int, each.offset()) + 1 for each in messages}
        self._stored |= {of: offset for of, offset in next_offsets.items() if of in self._owned}

    def note_moved(self, positions: Iterable[TopicPartition]) -> None:
        """Take note of where partitions were begun anew, so that it is kept also where no message comes."""
        self._stored |= {each.partition: each.offset for each in positions if each.partition in self._owned}

    def commit_if_due(self, consumer: Consumer) -> None:
        """Commit what was noted, unless the last commit was less than 0.2 s ago."""
        if time.monotonic() - self._last_commit >= COMMIT_INTERVAL_S:
            self.commit(consumer)

    def commit(self, consumer: Consumer) -> None:
        """Send what was noted to Kafka; `on_commit` gets the answer."""
        if not self._stored:
            return
        self._last_commit = time.monotonic()
        positions = [
            TopicPartition(self._topic, partition, offset, metadata=self._metadata)
            for partition, offset in self._stored.items()
        ]
        self._stored = {}
        try:
            consumer.commit(offsets=positions, asynchronous=True)
        except KafkaException as error:
            self.on_commit(error.args[0], positions)

    def on_commit(self, error: KafkaError | None, positions: list[TopicPartition]) -> None:
        """Take Kafka's answer; what it refused is sent again later."""
        for position in positions:
            refusal = error or position.error
            if refusal is None:
                self._refusal.end()
                continue
            self._refusal.begin(refusal.str())
            if position.partition in self._owned:
                self._stored.setdefault(position.partition, position.offset)


def topic_of(position: TopicPartition) -> str | None:
    """Give the id of the topic in which an offset was committed; None where that was not noted."""
    metadata = position.metadata or ""
    return metadata.removeprefix(_TOPIC) if metadata.startswith(_TOPIC) else None
