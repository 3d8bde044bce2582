"""This process as a member of the consumer group: how it joins, and whether it has lost its way there.

librdkafka has come back from an outage of Kafka and joined no group, and forgets all brokers where Kafka
names none while it shuts down (kafka_clients.py); so its own statistics are looked at.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from confluent_kafka import KafkaError, TopicPartition
from django.conf import settings

# A rebalance waits for a member for a minute (`max.poll.interval.ms`).
OUTSIDE_S = 90.0
# How often librdkafka tells how it stands. While the loop does something long, it tells nothing.
STATISTICS_INTERVAL_S = 5.0
UNTOLD_S = 3 * STATISTICS_INTERVAL_S
# What librdkafka can ask who the brokers are; its others stand for the group's coordinator and for itself.
_BROKERS = ("configured", "learned")

# With both, partitions that stay where they are are read on during a rebalance.
_PROTOCOLS: dict[str, dict[str, Any]] = {
    "classic": {
        "group.protocol": "classic",
        "partition.assignment.strategy": "cooperative-sticky",
        # A killed process keeps its partitions for so long.
        "session.timeout.ms": 6_000,
        "heartbeat.interval.ms": 1_000,
    },
    # Of this one these are settings of the broker.
    "consumer": {"group.protocol": "consumer"},
}

# What passes by itself: Kafka or a broker is away, or a partition or the group is on its way to another one.
_PASSING = {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._TRANSPORT,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._WAIT_COORD,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.FENCED_MEMBER_EPOCH,
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.KAFKA_STORAGE_ERROR,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.NOT_COORDINATOR,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.STALE_MEMBER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.UNKNOWN_MEMBER_ID,
    # Also of a topic that was made just now, by a broker that has not heard of it yet.
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNSTABLE_OFFSET_COMMIT,
}


def configuration(
    *,
    on_error: Callable[[KafkaError], None],
    on_commit: Callable[[KafkaError | None, list[TopicPartition]], None],
    on_statistics: Callable[[str], None],
) -> dict[str, Any]:
    """Return the settings of a consumer that commits by itself and never skips a message."""
    return _PROTOCOLS[settings.KAFKA_GROUP_PROTOCOL] | {
        # A rebalance waits so long for a member.
        "max.poll.interval.ms": 60_000,
        "auto.offset.reset": "error",
        # What stands at the end of a partition may be no message.
        "enable.partition.eof": True,
        # librdkafka rests for a second once its queue is full, and for up to ten after an outage; a topic
        # or a partition that is new it sees after five minutes.
        "fetch.queue.backoff.ms": 5,
        # Ten reads ahead; by default it would be a hundred, and 64 MB.
        "queued.max.messages.kbytes": 4_096,
        "queued.min.messages": 10_000,
        "reconnect.backoff.max.ms": 1_000,
        "topic.metadata.refresh.interval.ms": 10_000,
        "statistics.interval.ms": int(STATISTICS_INTERVAL_S * 1000),
        "error_cb": on_error,
        "on_commit": on_commit,
        "stats_cb": on_statistics,
    }


class MembershipWatch:
    """Learns from librdkafka's statistics whether the consumer has lost its way into the group.

    It is on its way for too long, or knows no broker by which it could be.

    Kafka is not asked who the members are: in librdkafka 2.16 a request to the group's coordinator that has
    timed out ends the process by an assertion once the coordinator is back.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._noted_at = float("-inf")
        self._outside_since: float | None = None
        self._rebalances = 0
        self._knows_brokers = True
        self.state = ""

    def note(self, statistics: str, *, kafka_answers: bool) -> None:
        """Take librdkafka's statistics. Time does not count while Kafka does not answer and nobody can join,
        while rebalances follow each other, and where nothing was told for a while.
        """
        told = msgspec.json.decode(statistics)
        group = told.get("cgrp", {})
        self._knows_brokers = any(broker["source"] in _BROKERS for broker in told["brokers"].values())
        last, self._noted_at = self._noted_at, self._clock()
        rebalances, self._rebalances = self._rebalances, group.get("rebalance_cnt", 0)
        self.state = f"{group.get('state')}, {group.get('join_state')}"
        if not self._knows_brokers:
            self.state += ", no brokers known"
        if _is_settled(group) or not kafka_answers:
            self._outside_since = None
        elif (
            self._outside_since is None or rebalances != self._rebalances or self._noted_at - last > UNTOLD_S
        ):
            self._outside_since = self._noted_at

    def is_lost(self) -> bool:
        """Return whether it knows no broker, or was no settled member for 90 s although Kafka answers.

        `state` says what is.
        """
        is_outside = self._outside_since is not None and self._noted_at - self._outside_since >= OUTSIDE_S
        return is_outside or not self._knows_brokers

    def begin(self) -> None:
        """Begin anew, with another consumer."""
        self._outside_since = None
        self._knows_brokers = True


def _is_settled(group: Mapping[str, Any]) -> bool:
    # By KIP-848 a member stays in "init" while it has no partition, and Kafka knows what each one is about.
    is_known = group.get("state") == "up"
    return is_known and (settings.KAFKA_GROUP_PROTOCOL == "consumer" or group.get("join_state") == "steady")


def is_passing(error: KafkaError) -> bool:
    """Return whether the same question may be answered a moment later."""
    return error.code() in _PASSING


def is_final(error: KafkaError) -> bool:
    """Return whether librdkafka has ended the client that this comes from: it does nothing any more."""
    return error.fatal() or error.code() == KafkaError._FATAL
