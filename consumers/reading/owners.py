"""Whether a partition has an owner: nobody reads it otherwise, and no error says so.

librdkafka has come back from an outage of Kafka as a consumer that is a member of nothing: it took no
partition, and had nothing to say about it. So what is not read here is compared with what Kafka says of the
group's members.
"""

import time
from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import Any

from confluent_kafka import Consumer, ConsumerGroupState, KafkaException
from django.conf import settings

from prices.publishing.kafka_clients import make_admin

# For how long a partition may have no owner while no rebalance is under way. A member that died keeps its own
# for six seconds, and a partition that is new is seen within ten.
UNOWNED_S = 30.0
ASK_INTERVAL_S = 5.0
ANSWER_TIMEOUT_S = 2.0
_AT_REST = {ConsumerGroupState.STABLE, ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD}


class OwnerWatch:
    """Asks Kafka which partitions the members of KAFKA_CONSUMER_GROUP have, without waiting for an answer."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._client = make_admin({"reconnect.backoff.max.ms": 1_000})
        self._asked: Future[Any] | None = None
        self._asked_at = self._clock()
        # Since when each partition is known to be nobody's.
        self._unowned_since: dict[int, float] = {}

    def look(self, consumer: Consumer, partitions: Collection[int], *, own: Collection[int]) -> list[int]:
        """Return those of a topic's partitions that have been nobody's for 30 s, in order: they are not this
        consumer's own, and Kafka says of no other member that it has them.
        """
        if self._asked is not None and self._asked.done():
            asked, self._asked = self._asked, None
            # Not in each look: librdkafka's main thread is asked for its name.
            self._take(asked, set(partitions).difference(own), consumer.memberid())
        elif self._asked is None and self._clock() - self._asked_at >= ASK_INTERVAL_S:
            self._ask()
        now = self._clock()
        return sorted(of for of, since in self._unowned_since.items() if now - since >= UNOWNED_S)

    def forget(self) -> None:
        """Begin anew: what is known is of a member that is none any more."""
        self._unowned_since = {}

    def _ask(self) -> None:
        group = settings.KAFKA_CONSUMER_GROUP
        self._asked = self._client.describe_consumer_groups([group], request_timeout=ANSWER_TIMEOUT_S)[group]
        self._asked_at = self._clock()

    def _take(self, answer: Future[Any], not_own: set[int], member_id: str | None) -> None:
        try:
            group = answer.result()
        except KafkaException:
            # Kafka is away, or does not let this client know.
            self.forget()
            return
        unowned = not_own - _owned_by_others(group, member_id) if group.state in _AT_REST else set()
        self._unowned_since = {of: self._unowned_since.get(of, self._asked_at) for of in unowned}


def _owned_by_others(group: Any, member_id: str | None) -> set[int]:
    return {
        position.partition
        for member in group.members
        if member.member_id != member_id
        for position in member.assignment.topic_partitions
        if position.topic == settings.KAFKA_TOPIC
    }
