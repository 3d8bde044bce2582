"""Kafka clients: one place that says where Kafka is, and what librdkafka may write to the log."""

import logging
from collections.abc import Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient
from django.conf import settings

# While Kafka is away librdkafka writes a line for each retry; what matters is logged once, by who uses it.
_silent = logging.getLogger("librdkafka")
_silent.disabled = True


def make_consumer(options: Mapping[str, Any]) -> Consumer:
    """Return a consumer of KAFKA_CONSUMER_GROUP that commits nothing by itself."""
    group = {
        "group.id": settings.KAFKA_CONSUMER_GROUP,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
    }
    return Consumer({**_servers(), **group, **options}, logger=_silent)


def make_producer(options: Mapping[str, Any]) -> Producer:
    """Return a producer whose messages count once all replicas have them, each once and in order."""
    sound = {"acks": "all", "enable.idempotence": True}
    return Producer({**_servers(), **sound, **options}, logger=_silent)


def delivery_error(error: KafkaError | None, message: Message) -> KafkaError | None:
    """Return why a message is not known to be in the log, by its delivery report; None where it is there.

    One that is told as a success and has no offset was refused as a repetition (DUPLICATE_SEQUENCE_NUMBER),
    and Kafka may not have it: where the first of several batches for a new partition has to be sent again,
    the next one is taken before it, and its own numbers are then too low. It has to be sent anew.
    """
    offset = message.offset()
    is_there = error is None and offset is not None and offset >= 0
    return None if is_there else error or KafkaError(KafkaError.DUPLICATE_SEQUENCE_NUMBER)


def make_admin(options: Mapping[str, Any] | None = None) -> AdminClient:
    """Return a client for topics, groups and offsets."""
    return AdminClient({**_servers(), **(options or {})}, logger=_silent)


def _servers() -> dict[str, Any]:
    return {"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS}
