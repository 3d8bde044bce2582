"""Whether Kafka has messages that do not come, and nothing says why.

librdkafka has lost track of partitions that it was told to read, without a word: nothing came, the loop
turned, and the lag grew. So what is silent is compared with where Kafka says that its end is. It has also
come back from an outage of Kafka and joined no group, and forgets all brokers where Kafka names none while
it shuts down (kafka_clients.py); so librdkafka's own statistics are looked at, too.
"""

import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import msgspec
from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]  # documented
from django.conf import settings

from prices.publishing.kafka_clients import LastingClient, make_admin

# For how long messages may wait in Kafka, and none come.
STALL_S = 30.0
ASK_INTERVAL_S = 5.0
# A rebalance waits for a member for a minute (`max.poll.interval.ms`).
OUTSIDE_S = 90.0
ANSWER_TIMEOUT_S = 2.0
# How often librdkafka tells how it stands. While the loop does something long, it tells nothing.
STATISTICS_INTERVAL_S = 5.0
UNTOLD_S = 3 * STATISTICS_INTERVAL_S
# What librdkafka can ask who the brokers are; its others stand for the group's coordinator and for itself.
_BROKERS = ("configured", "learned")


class StalledError(Exception):
    """Kafka has messages of a partition, and the consumer gets none; the text names it."""


@dataclass(slots=True)
class _Silence:
    """Since when nothing came of a partition, and since when Kafka is known to have something."""

    since: float
    behind_since: float | None = None
    was_sought: bool = False


class StallWatch:
    """Asks Kafka for the ends of silent partitions, without waiting for the answer."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._clients = LastingClient(lambda: make_admin({"reconnect.backoff.max.ms": 1_000}))
        self._silences: dict[int, _Silence] = {}
        self._asked: dict[int, Future[Any]] = {}
        self._asked_at = 0.0

    def follow(self, partitions: Collection[int]) -> None:
        """Watch these partitions and no others, each as if something of it had come just now."""
        self._silences = {partition: _Silence(self._clock()) for partition in partitions}
        self._asked = {}

    def note(self, partitions: Collection[int]) -> None:
        """Take note that something of these partitions has come, were it that there is nothing more."""
        for partition in partitions:
            if partition in self._silences:
                self._silences[partition] = _Silence(self._clock())

    def look(self, positions: Mapping[int, int]) -> list[int]:
        """Return partitions that are to be sought to their position, as nothing of them came for 30 s
        although Kafka has some. To be called where all that had come was taken. Raises StalledError for one
        that was sought before.
        """
        try:
            client = self._clients.get()
        except KafkaException:
            # As in topic_watch.py, and as what follows: what the client has to say is taken, and dropped.
            return []
        client.poll(0)
        if self._asked and all(future.done() for future in self._asked.values()):
            self._compare(positions)
        elif not self._asked and self._clock() - self._asked_at >= ASK_INTERVAL_S:
            self._ask()
        stalled = [
            partition
            for partition, silence in self._silences.items()
            if silence.behind_since is not None and self._clock() - silence.behind_since >= STALL_S
        ]
        for partition in stalled:
            if self._silences[partition].was_sought:
                raise StalledError(
                    f"Kafka has messages of {settings.KAFKA_TOPIC}, partition {partition}, from offset"
                    f" {positions.get(partition)} on, and none came for {2 * STALL_S:g} s: start the consumer"
                    " anew."
                )
            self._silences[partition] = _Silence(self._clock(), was_sought=True)
        return stalled

    def _ask(self) -> None:
        self._asked_at = self._clock()
        silent = [
            partition
            for partition, silence in self._silences.items()
            if self._asked_at - silence.since >= ASK_INTERVAL_S
        ]
        if silent:
            wanted = {TopicPartition(settings.KAFKA_TOPIC, each): OffsetSpec.latest() for each in silent}  # type: ignore[no-untyped-call]
            answers = self._clients.get().list_offsets(
                wanted,
                # As the consumer: what a transaction has not committed yet does not come.
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=ANSWER_TIMEOUT_S,
            )
            self._asked = {each.partition: answer for each, answer in answers.items()}

    def _compare(self, positions: Mapping[int, int]) -> None:
        answers, self._asked = self._asked, {}
        self._clients.note(
            self._clients.get(), asked_at=self._asked_at, is_answered=any(map(_is_answered, answers.values()))
        )
        for partition, answer in answers.items():
            silence = self._silences.get(partition)
            try:
                end = answer.result().offset
            except KafkaException:
                # Kafka, or the partition's broker, is away: nothing can come.
                end = -1
            if silence is None or partition not in positions:
                continue
            if end <= positions[partition]:
                silence.behind_since = None
            elif silence.behind_since is None and silence.since < self._asked_at:
                silence.behind_since = self._clock()


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


def _is_answered(answer: Future[Any]) -> bool:
    error = answer.exception()
    # Codes below 0 are librdkafka's own.
    return error is None or (isinstance(error, KafkaException) and error.args[0].code() >= 0)


def _is_settled(group: Mapping[str, Any]) -> bool:
    # By KIP-848 a member stays in "init" while it has no partition, and Kafka knows what each one is about.
    is_known = group.get("state") == "up"
    return is_known and (settings.KAFKA_GROUP_PROTOCOL == "consumer" or group.get("join_state") == "steady")
