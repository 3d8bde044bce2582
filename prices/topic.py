"""The price-events topic: made once, with the partitions that settings ask for."""

import logging

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from django.conf import settings

TIMEOUT_S = 30.0
# The exception tells what matters; librdkafka's own lines would come before it each second.
_silent = logging.getLogger("librdkafka.admin")
_silent.disabled = True


def ensure_topic() -> bool:
    """Make the topic with KAFKA_PARTITIONS partitions where it does not exist; tell whether it was made.

    Raises KafkaException where Kafka does not answer within 30 s or refuses.
    """
    client = AdminClient({"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS}, logger=_silent)
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
    return True
