"""What Kafka is asked now and then beside the reading, as librdkafka does not tell it by itself.

Whether the topic still is the one that was begun: one deleted and made anew has the same name. Kafka gives
each topic an id. librdkafka goes on in a new topic at the offset that it had reached in the old one, without
a word, and so leaves out what stands before it.

And whether Kafka has messages that do not come. librdkafka has lost track of partitions that it was told to
read, without a word: nothing came, the loop turned, and the lag grew. So what is silent is compared with
where Kafka says that its end is.
"""

import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import ClusterMetadata, OffsetSpec  # type: ignore[attr-defined]  # documented
from django.conf import settings

from prices.outage_log import Outage
from prices.publishing.kafka_clients import LastingClient, make_admin

ANSWER_TIMEOUT_S = 2.0
# Between two questions for the topic, and two for the ends of silent partitions.
LOOK_INTERVAL_S = 2.0
ASK_INTERVAL_S = 5.0
# For how long messages may wait in Kafka, and none come.
STALL_S = 30.0

WHAT_TO_DO = (
    "What to do: stop every consumer of the group; start one by `manage.py consume_prices --from earliest`,"
    " which begins at the oldest message of each partition whose position is gone, and goes on in the others"
    " where it was (what is stored already does not count twice), or by `--from latest`, which leaves out"
    " what such a partition holds now. Before its first write it adds what price_points has and nobody has"
    " read; when it has caught up, `manage.py verify_averages` tells whether all is there, and"
    " `manage.py rebuild_averages` mends what is not."
)


class TopicReplacedError(Exception):
    """The topic is not the one that the group's offsets are of; the text says what to do."""


class TopicWatch:
    """Asks Kafka for the id of KAFKA_TOPIC, every few seconds and without waiting for the answer."""

    def __init__(self) -> None:
        self._topic = settings.KAFKA_TOPIC
        self._clients = LastingClient(lambda: make_admin({"reconnect.backoff.max.ms": 1_000}))
        self._missing = Outage(began="topic.missing", ended="topic.found")
        # Whether Kafka told the topic when it was last asked.
        self.is_answered = False
        self._known = ""
        self._asked: Future[Any] | None = None
        self._asked_at = 0.0

    def learn(self) -> str:
        """Return the topic's id, waiting a few seconds for it; the first is the one that counts from then on.

        Empty where the broker has no ids to tell, as one without a controller. Raises KafkaException
        where Kafka does not answer, TopicReplacedError where the id has changed.
        """
        # Only a controller tells ids: where there is none, the client waits for it until the time is over.
        cluster = self._list_topics()
        if cluster.controller_id not in cluster.brokers:
            if self._known:
                # One that had a controller is starting: its topic is not another one for that.
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            return ""
        try:
            found = str(self._ask().result(ANSWER_TIMEOUT_S + 1).topic_id)
        except FutureTimeoutError as error:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from error
        self._known = self._known or found
        self._compare(found)
        return found

    def look(self) -> None:
        """Take the answer that has come, and ask again when it is time. Raises TopicReplacedError."""
        # While Kafka is away librdkafka has a word for each try, and keeps those that nobody takes.
        try:
            client = self._clients.get()
        except KafkaException:
            # Its settings name a file that is gone: as long as that is so, Kafka cannot be asked.
            self.is_answered = False
            return
        client.poll(0)
        if self._asked is not None and self._asked.done():
            asked, self._asked = self._asked, None
            self._take(asked)
        elif self._asked is None and time.monotonic() - self._asked_at >= LOOK_INTERVAL_S:
            self._asked, self._asked_at = self._ask(), time.monotonic()

    def _list_topics(self) -> ClusterMetadata:
        client, asked_at = self._clients.get(), time.monotonic()
        try:
            found = client.list_topics(timeout=ANSWER_TIMEOUT_S)
        except KafkaException:
            self._clients.note(client, asked_at=asked_at, is_answered=False)
            # What the client was asked besides may come to nothing with it.
            self._asked = None
            raise
        self._clients.note(client, asked_at=asked_at, is_answered=True)
        return found

    def _ask(self) -> Future[Any]:
        topics = TopicCollection([self._topic])
        return self._clients.get().describe_topics(topics, request_timeout=ANSWER_TIMEOUT_S)[self._topic]

    def _take(self, answer: Future[Any]) -> None:
        try:
            found = str(answer.result().topic_id)
            self.is_answered = True
            self._clients.note(self._clients.get(), asked_at=self._asked_at, is_answered=True)
        except KafkaException as error:
            self.is_answered = False
            self._clients.note(self._clients.get(), asked_at=self._asked_at, is_answered=_is_answered(answer))
            # That Kafka is away the consumer notices too.
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                self._missing.begin(error.args[0].str())
            return
        self._missing.end()
        self._compare(found)

    def _compare(self, found: str) -> None:
        if self._known and found != self._known:
            raise replaced_topic(self._known, found)


def read_topic_id() -> str:
    """Return the id of KAFKA_TOPIC; empty where Kafka does not tell it."""
    try:
        return TopicWatch().learn()
    except KafkaException:
        return ""


def replaced_topic(former: str, found: str) -> TopicReplacedError:
    """Return the error for a topic that has another id than the one that the group's offsets are of."""
    group, topic = settings.KAFKA_CONSUMER_GROUP, settings.KAFKA_TOPIC
    return TopicReplacedError(
        f"The topic {topic} was deleted and made anew (its id was {former} and is {found}): the consumer"
        f" group {group} has offsets of the former one, and would leave out what the new one holds before"
        " them."
        f" {WHAT_TO_DO}"
    )


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
            # As for the topic, and as what follows: what the client has to say is taken, and dropped.
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


def _is_answered(answer: Future[Any]) -> bool:
    error = answer.exception()
    # Codes below 0 are librdkafka's own.
    return error is None or (isinstance(error, KafkaException) and error.args[0].code() >= 0)
