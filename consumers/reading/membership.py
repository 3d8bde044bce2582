"""This process as a member of the consumer group: how it joins, and whether it has lost its way there.

librdkafka has come back from an outage of Kafka and joined no group, and forgets all brokers where Kafka
names none while it shuts down (kafka_clients.py); so its own statistics are looked at.
"""

import time
from collections.abc import Callable, Mapping
from threading import Thread
from typing import Any, TypeAlias

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from django.conf import settings

from consumers.reading.group import OffsetReset, Start, starting_positions
from consumers.reading.watches import TopicWatch
from prices.outage_log import Outage
from prices.publishing.kafka_clients import make_consumer

OnPartitions: TypeAlias = Callable[[Consumer, list[TopicPartition]], None]
OnCommit: TypeAlias = Callable[[KafkaError | None, list[TopicPartition]], None]

# Between a consumer that was ended for good and the next one.
REJOIN_S = 1.0
# Kafka is asked for where to begin in the middle of a rebalance, which does not wait for ever.
POSITIONS_RETRY_S = 0.2
POSITIONS_TIMEOUT_S = 30.0
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
    *, on_error: Callable[[KafkaError], None], on_commit: OnCommit, on_statistics: Callable[[str], None]
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


class Member:
    """A member of the group for as long as the process lives, by one consumer of librdkafka after another.

    consumer  the present one
    topic     whether the topic is still the same; topic_id is what Kafka told when partitions were last begun
    watch     whether the way into the group is lost
    kafka     whether Kafka is away
    """

    def __init__(
        self, *, on_assign: OnPartitions, on_revoke: OnPartitions, on_lost: OnPartitions, on_commit: OnCommit
    ) -> None:
        self._on_partitions = {"on_assign": on_assign, "on_revoke": on_revoke, "on_lost": on_lost}
        self._on_commit = on_commit
        self.topic, self.topic_id = TopicWatch(), ""
        self.watch = MembershipWatch()
        self.kafka = Outage(began="kafka.away", ended="kafka.back")
        self.consumer = self._make_consumer()

    def join(self) -> None:
        """Ask for partitions of KAFKA_TOPIC; all that the consumer has to tell comes within its calls."""
        self.consumer.subscribe([settings.KAFKA_TOPIC], **self._on_partitions)

    def rejoin(self) -> None:
        """Go on with another consumer: librdkafka has ended this one for good, or lost it."""
        # What refused this one may refuse the next.
        time.sleep(REJOIN_S)
        # Without a word to the old one: its `close` would never end, and librdkafka turn at full speed in it.
        # What it had passes to others once its session ends, if Kafka has not taken it away already.
        self.consumer = self._make_consumer()
        self.watch.begin()
        self.join()

    def leave(self, *, timeout_s: float) -> None:
        """Give up all partitions, and wait a while for that."""
        # Revokes, and so commits; in a thread, because it waits for that as long as Kafka is away.
        closing = Thread(target=self.consumer.close, daemon=True)
        closing.start()
        closing.join(timeout_s)

    def starts(
        self, partitions: list[TopicPartition], *, reset: OffsetReset | None, is_stopped: Callable[[], bool]
    ) -> list[Start]:
        """Return where these partitions are begun; none, where it is stopped. Waits for Kafka, up to 30 s.

        The loop does not turn meanwhile, so the heartbeat is not touched. Raises what `starting_positions`
        and `TopicWatch.learn` raise.
        """
        deadline = time.monotonic() + POSITIONS_TIMEOUT_S
        while not is_stopped():
            try:
                self.topic_id = self.topic.learn()
                starts = starting_positions(self.consumer, partitions, topic_id=self.topic_id, reset=reset)
            except KafkaException as error:
                if not is_passing(error.args[0]) or time.monotonic() > deadline:
                    raise
                self.kafka.begin(error.args[0].str())
                time.sleep(POSITIONS_RETRY_S)
            else:
                self.kafka.end()
                return starts
        return []

    def _make_consumer(self) -> Consumer:
        return make_consumer(
            configuration(
                on_error=self._on_error, on_commit=self._on_commit, on_statistics=self._on_statistics
            )
        )

    def _on_error(self, error: KafkaError) -> None:
        if error.code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._AUTHENTICATION):
            self.kafka.begin(error.str())

    def _on_statistics(self, statistics: str) -> None:
        self.watch.note(statistics, kafka_answers=self.topic.is_answered)


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
