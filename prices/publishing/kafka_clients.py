"""Kafka clients: one place that says where Kafka is, how to get in, and what librdkafka may log."""

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient
from django.conf import settings

# While Kafka is away librdkafka writes a line for each retry; what matters is logged once, by who uses it.
_silent = logging.getLogger("librdkafka")
_silent.propagate = False
_silent.addHandler(logging.NullHandler())
_REFUSALS = (KafkaError._AUTHENTICATION, KafkaError._SSL)
# librdkafka says before it who said so, and after it in which state of the connection.
_AROUND_REASON = re.compile(r"^\w+://\S+: | \(after .*")
AnyClient = TypeVar("AnyClient")


def make_consumer(options: Mapping[str, Any]) -> Consumer:
    """Return a consumer of KAFKA_CONSUMER_GROUP that commits nothing by itself."""
    group = {
        "group.id": settings.KAFKA_CONSUMER_GROUP,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
    }
    return Consumer({**_connection(), **group, **options}, logger=_silent)


def make_producer(options: Mapping[str, Any]) -> Producer:
    """Return a producer whose messages count once all replicas have them, each once and in order."""
    sound = {"acks": "all", "enable.idempotence": True}
    return Producer({**_connection(), **sound, **options}, logger=_silent)


def delivery_error(error: KafkaError | None, message: Message) -> KafkaError | None:
    """Return why a message is not known to be in the log, by its delivery report; None where it is there.

    One that is told as a success and has no offset was refused as a repetition (DUPLICATE_SEQUENCE_NUMBER),
    and Kafka may not have it: where the first of several batches for a new partition has to be sent again,
    the next one is taken before it, and its own numbers are then too low. It has to be sent anew.
    """
    offset = message.offset()
    is_there = error is None and offset is not None and offset >= 0
    return None if is_there else error or KafkaError(KafkaError.DUPLICATE_SEQUENCE_NUMBER)


class Admin(AdminClient):
    """A client for topics, groups and offsets that can say why Kafka refuses it."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        refusals: deque[str] = deque(maxlen=1)

        def note(error: KafkaError) -> None:
            # A server that misses the client's certificate just ends the connection, and says so in TLS.
            if error.code() in _REFUSALS or "SSL routines" in error.str():
                refusals.append(_AROUND_REASON.sub("", error.str()))

        self._refusals = refusals
        configuration: dict[str, Any] = {**_connection(), "error_cb": note, **options}
        super().__init__(configuration, logger=_silent)

    def refusal(self) -> str | None:
        """Return what Kafka, or this side, did not take of the other since this was last asked.

        That is a user, a password or a certificate; None where there is nothing of the kind. The call that
        failed says no more than that there was no answer in time.
        """
        self.poll(0)
        return self._refusals.pop() if self._refusals else None

    def reason(self, error: KafkaException) -> str:
        """Return in words why a call of this client has failed."""
        cause: KafkaError = error.args[0]
        return self.refusal() or f"{cause.str()} ({cause.name()})"


def make_admin(options: Mapping[str, Any] | None = None) -> Admin:
    """Return a client for topics, groups and offsets."""
    return Admin(options or {})


class LastingClient(Generic[AnyClient]):
    """Holds a client for as long as its process lives; makes it when it is first used, and anew if need be.

    A Kafka of one node that shuts down says that its cluster has no brokers. librdkafka (2.16) then forgets
    the only one that it knew, and asks nobody from then on, Kafka being back or not. So a client that went
    without an answer twice in a row gives way to another one. Not after the first time: on a busy machine
    one that has its connections is answered sooner than a new one.
    """

    def __init__(self, make: Callable[[], AnyClient]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._client: AnyClient | None = None
        self._silences = 0
        self._silent_at = float("-inf")

    def get(self) -> AnyClient:
        """Return the client. Raises KafkaException where librdkafka does not take its settings."""
        with self._lock:
            if self._client is None:
                self._client, self._silences = self._make(), 0
            return self._client

    def note(self, client: AnyClient, *, asked_at: float, is_answered: bool) -> None:
        """Take note whether Kafka had an answer for what the client asked at this time (time.monotonic).

        Those who asked beside each other have met one silence.
        """
        with self._lock:
            if client is not self._client:
                return
            if is_answered:
                self._silences = 0
            elif asked_at >= self._silent_at:
                self._silences, self._silent_at = self._silences + 1, time.monotonic()
            if self._silences >= 2:
                self._client = None

    def drop(self, client: AnyClient) -> None:
        """Make another one for the next use, unless that has happened already."""
        with self._lock:
            if self._client is client:
                self._client = None


def _connection() -> dict[str, Any]:
    """Return where Kafka is, and how to get in."""
    security = {
        "security.protocol": settings.KAFKA_SECURITY_PROTOCOL,
        "sasl.mechanism": settings.KAFKA_SASL_MECHANISM if "SASL" in settings.KAFKA_SECURITY_PROTOCOL else "",
        "sasl.username": settings.KAFKA_SASL_USERNAME,
        "sasl.password": settings.KAFKA_SASL_PASSWORD,
        "ssl.ca.location": settings.KAFKA_CA_FILE,
        "ssl.certificate.location": settings.KAFKA_CERTIFICATE_FILE,
        "ssl.key.location": settings.KAFKA_KEY_FILE,
        "ssl.key.password": settings.KAFKA_KEY_PASSWORD,
    }
    given = {name: value for name, value in security.items() if value}
    return {"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS, **given}
