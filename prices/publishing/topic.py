"""The price-events topic: made once, with the partitions that settings ask for."""

import time

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from django.conf import settings

TIMEOUT_S = 30.0
ASK_AGAIN_S = 0.05


def ensure_topic(client: AdminClient) -> bool:
    """Make the topic with KAFKA_PARTITIONS partitions where it does not exist; return whether it was made.

    One that was made can be used at once. Raises KafkaException where Kafka does not answer within 30 s or
    refuses.
    """
    # All topics: asking for one by its name makes it, on brokers that make topics by themselves.
    if settings.KAFKA_TOPIC in client.list_topics(timeout=TIMEOUT_S).topics:
        return False
    topic = NewTopic(
        settings.KAFKA_TOPIC,
        num_partitions=settings.KAFKA_PARTITIONS,
        # The broker's clock, not each producer's: ids that lie ahead of it are refused.
        config={"message.timestamp.type": "LogAppendTime"},
    )
    future = client.create_topics([topic], operation_timeout=TIMEOUT_S, request_timeout=TIMEOUT_S)[
        settings.KAFKA_TOPIC
    ]
    try:
        future.result(timeout=TIMEOUT_S + 5)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise
        return False
    _wait_for_leaders(client)
    return True


def _wait_for_leaders(client: AdminClient) -> None:
    """Wait until the leaders of the topic's partitions are known, a moment after it was made."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        topic = client.list_topics(timeout=TIMEOUT_S).topics.get(settings.KAFKA_TOPIC)
        if topic and topic.partitions and not any(each.error for each in topic.partitions.values()):
            return
        time.sleep(ASK_AGAIN_S)
