"""Offsets of what is stored, on their way to Kafka.

Never by librdkafka's synchronous commit: where Kafka is away, that waits until it is back, however
long it takes. An offset that is committed late, or never, only means that what is stored already is
read again.
"""

import time
from collections.abc import Collection, Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from prices.outage import Outage

COMMIT_INTERVAL_S = 0.2
# An answer may never come, and a commit that was on its way while partitions changed hands may set back
# what their next owner had committed: Kafka asks only whether who commits is a member of the group.
REPEAT_INTERVAL_S = 5.0
# What is committed beside each offset: the id of the topic that it counts in.
_TOPIC = "topic="


class OffsetCommitter:
    """Commits the next offset of each partition that this consumer owns: where it changed, a few times a
    second, and all of them every few seconds.
    """

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._metadata = ""
        self._owned: set[int] = set()
        self._next: dict[int, int] = {}
        # What of it Kafka has confirmed, or is being asked to.
        self._sent: dict[int, int] = {}
        self._last_commit = 0.0
        self._last_repeat = 0.0
        self._refusal = Outage(began="offsets.refused", ended="offsets.accepted")

    def own(self, positions: Sequence[TopicPartition], *, topic_id: str = "") -> None:
        """Take note of partitions that are this consumer's from now on, of where they are begun, and of
        the id of their topic. A negative offset stands for a partition that was never committed.
        """
        self._owned.update(each.partition for each in positions)
        self._next |= {each.partition: each.offset for each in positions if each.offset >= 0}
        self._metadata = f"{_TOPIC}{topic_id}" if topic_id else ""

    def disown(self, partitions: Collection[int]) -> None:
        """Forget partitions that are another consumer's now: its offsets must not be set back."""
        self._owned.difference_update(partitions)
        for partition in partitions:
            self._next.pop(partition, None)
            self._sent.pop(partition, None)

    def note_stored(self, next_offsets: Mapping[int, int]) -> None:
        """Take note of where to go on in partitions: the rows of all messages before are committed."""
        self._next |= {of: offset for of, offset in next_offsets.items() if of in self._owned}

    def commit_if_due(self, consumer: Consumer) -> None:
        """Commit what changed, unless the last commit was less than 0.2 s ago; every 5 s, commit all."""
        now = time.monotonic()
        if now - self._last_repeat >= REPEAT_INTERVAL_S:
            self._sent, self._last_repeat = {}, now
        if now - self._last_commit >= COMMIT_INTERVAL_S:
            self.commit(consumer)

    def commit(self, consumer: Consumer) -> None:
        """Send what changed to Kafka; `on_commit` gets the answer."""
        changed = {of: offset for of, offset in self._next.items() if self._sent.get(of) != offset}
        if not changed:
            return
        self._last_commit = time.monotonic()
        self._sent |= changed
        positions = [
            TopicPartition(self._topic, partition, offset, metadata=self._metadata)
            for partition, offset in changed.items()
        ]
        try:
            consumer.commit(offsets=positions, asynchronous=True)
        except KafkaException as error:
            self.on_commit(error.args[0], positions)

    def on_commit(self, error: KafkaError | None, positions: list[TopicPartition]) -> None:
        """Take Kafka's answer; what it refused is sent again, unless it has changed meanwhile."""
        for position in positions:
            refusal = error or position.error
            if refusal is None:
                self._refusal.end()
                continue
            self._refusal.begin(refusal.str())
            if self._sent.get(position.partition) == position.offset:
                del self._sent[position.partition]


def topic_of(position: TopicPartition) -> str | None:
    """Give the id of the topic in which an offset was committed; None where that was not noted."""
    metadata = position.metadata or ""
    return metadata.removeprefix(_TOPIC) if metadata.startswith(_TOPIC) else None
