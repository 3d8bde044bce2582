"""The next offset of each partition that is owned, and its commits; where to begin is chosen in group.py.

Never by librdkafka's synchronous commit: where Kafka is away, that waits until it is back, however
long it takes. An offset that is committed late, or never, only means that what is stored already is
read again.
"""

import time
from collections.abc import Collection, Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from prices.outage_log import Outage

COMMIT_INTERVAL_S = 0.2
# An answer may never come, and a commit that was on its way while partitions changed hands may set back
# what their next owner had committed: Kafka asks only whether who commits is a member of the group.
REPEAT_INTERVAL_S = 5.0
# What is committed beside each offset: the id of the topic that it counts in, empty where Kafka tells none.
# What other programs commit has no such note.
_TOPIC = "topic="


class OffsetCommitter:
    """Commits the next offset of each partition that this consumer owns: where it changed, a few times a
    second, and all of them every few seconds.
    """

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._metadata = ""
        # Of each owned partition where to go on: where it was begun, or after what is stored.
        self._next: dict[int, int] = {}
        # Partitions whose beginning is not committed: nothing of them is, until something is stored.
        self._uncommitted: set[int] = set()
        # Partitions that end with what is no message -> the offset after the last message, and the end.
        self._ends: dict[int, tuple[int, int]] = {}
        # Of `_next`, what Kafka has confirmed or is being asked to.
        self._sent: dict[int, int] = {}
        self._last_commit = 0.0
        self._last_repeat = 0.0
        self._refusal = Outage(began="offsets.refused", ended="offsets.accepted")

    @property
    def positions(self) -> list[TopicPartition]:
        """Where to go on in each partition that is owned: all before is stored."""
        return [TopicPartition(self._topic, of, offset) for of, offset in self._next.items()]

    def assign(
        self, positions: Sequence[TopicPartition], *, topic_id: str = "", uncommitted: Collection[int] = ()
    ) -> None:
        """Take note of partitions that are this consumer's from now on, of where they are begun, and of
        the id of their topic. Those that are `uncommitted` have no offset in Kafka.
        """
        self._next |= {each.partition: each.offset for each in positions}
        self._uncommitted.update(uncommitted)
        self._metadata = metadata_of(topic_id)

    def revoke(self, partitions: Collection[int]) -> None:
        """Forget partitions that are another consumer's now: its offsets must not be set back."""
        self._uncommitted.difference_update(partitions)
        for partition in partitions:
            self._next.pop(partition, None)
            self._sent.pop(partition, None)
            self._ends.pop(partition, None)

    def mark_stored(self, next_offsets: Mapping[int, int]) -> None:
        """Take note of where to go on in partitions: the rows of all messages before are committed."""
        owned = {of: offset for of, offset in next_offsets.items() if of in self._next}
        self._next |= owned
        self._uncommitted.difference_update(owned)
        self._pass_ends()

    def mark_end(self, partition: int, end: int, *, after: int) -> None:
        """Take note that a partition has no message between two offsets: the marks of transactions stand
        there, or what a compaction has left out. Once all before is stored, the end is where to go on.
        """
        if partition in self._next and end > after:
            self._ends[partition] = after, end
            self._pass_ends()

    def _pass_ends(self) -> None:
        for partition, (after, end) in list(self._ends.items()):
            if self._next[partition] >= after:
                self._next[partition] = max(self._next[partition], end)
                self._uncommitted.discard(partition)
                del self._ends[partition]

    def commit_if_due(self, consumer: Consumer) -> None:
        """Commit what changed, unless the last commit was less than 0.2 s ago; every 5 s, commit all."""
        now = time.monotonic()
        if now - self._last_repeat >= REPEAT_INTERVAL_S:
            self._sent, self._last_repeat = {}, now
        if now - self._last_commit >= COMMIT_INTERVAL_S:
            self.commit(consumer)

    def commit(self, consumer: Consumer) -> None:
        """Send what changed to Kafka; `on_commit` gets the answer."""
        changed = {
            of: offset
            for of, offset in self._next.items()
            if self._sent.get(of) != offset and of not in self._uncommitted
        }
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


def metadata_of(topic_id: str) -> str:
    """Return what a consumer commits with its offsets in the topic with this id (empty: not known)."""
    return f"{_TOPIC}{topic_id}"


def topic_of(position: TopicPartition) -> str | None:
    """Return the id of the topic in which a consumer committed an offset, empty where it was not known; None
    where another program has committed it.
    """
    metadata = position.metadata or ""
    return metadata.removeprefix(_TOPIC) if metadata.startswith(_TOPIC) else None


def is_of_another_topic(position: TopicPartition, topic_id: str) -> bool:
    """Return whether an offset was committed in another topic; not where one of both ids is not known."""
    committed_in = topic_of(position)
    return bool(topic_id) and bool(committed_in) and committed_in != topic_id
