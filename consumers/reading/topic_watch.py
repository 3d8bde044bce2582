"""Whether the topic still is the one that was begun: one deleted and made anew has the same name.

Kafka gives each topic an id. librdkafka goes on in a new topic at the offset that it had reached in the
old one, without a word, and so leaves out what stands before it.
"""

import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import ClusterMetadata  # type: ignore[attr-defined]  # documented
from django.conf import settings

from prices.outage_log import Outage
from prices.publishing.kafka_clients import LastingClient, make_admin

LOOK_INTERVAL_S = 2.0
ANSWER_TIMEOUT_S = 2.0


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
            # Codes below 0 are librdkafka's own.
            is_answer = error.args[0].code() >= 0
            self._clients.note(self._clients.get(), asked_at=self._asked_at, is_answered=is_answer)
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


WHAT_TO_DO = (
    "What to do: stop every consumer of the group; start one by `manage.py consume_prices --from earliest`,"
    " which begins at the oldest message of each partition whose position is gone, and goes on in the others"
    " where it was (what is stored already does not count twice), or by `--from latest`, which leaves out"
    " what such a partition holds now. Before its first write it adds what price_points has and nobody has"
    " read; when it has caught up, `manage.py verify_averages` tells whether all is there, and"
    " `manage.py rebuild_averages` mends what is not."
)
