"""Whether the topic keeps each message until it is consumed, and as the consumer needs it."""

from collections.abc import Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]  # not in __all__
from django.conf import settings

ANSWER_TIMEOUT_S = 2.0
LEAST_RETENTION_MS = 24 * 3600 * 1000
_FORBIDDEN = {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED}


class UnsuitableTopicError(Exception):
    """The topic loses messages that are not consumed; the text says what to do."""


@dataclass(frozen=True, slots=True)
class TopicFindings:
    """What is not as it should be: `loses` prices, or is only `odd`."""

    loses: str | None
    odd: Sequence[str]


def look_at_topic(client: AdminClient) -> TopicFindings:
    """Return what is not right with KAFKA_TOPIC; that its settings may not be read is odd, and no more.

    Raises KafkaException where Kafka does not answer within 2 s.
    """
    name = settings.KAFKA_TOPIC
    topic = client.list_topics(timeout=ANSWER_TIMEOUT_S).topics.get(name)
    odd = []
    if topic is not None and len(topic.partitions) < settings.KAFKA_PARTITIONS:
        odd.append(
            f"{name} has {len(topic.partitions)} partitions and KAFKA_PARTITIONS is"
            f" {settings.KAFKA_PARTITIONS}: no more consumers share its work"
        )
    try:
        found = _read(client, name)
    except KafkaException as error:
        if error.args[0].code() not in _FORBIDDEN:
            raise
        return TopicFindings(
            None, [*odd, f"the settings of {name} may not be read, so nobody looked at them"]
        )
    loses = None
    if "compact" in found.get("cleanup.policy", ""):
        loses = (
            f"{name} has cleanup.policy={found['cleanup.policy']}: Kafka deletes all but the last price of a"
            " symbol, consumed or not, and averages would leave them out. Set it to `delete`, and then fill"
            " what is missing by `manage.py rebuild_averages`"
        )
    replicas = (
        min((len(each.replicas) for each in topic.partitions.values()), default=None) if topic else None
    )
    return TopicFindings(loses, [*odd, *_oddities(name, found), *_too_few_replicas(name, found, replicas)])


def refuse_unsuitable(client: AdminClient) -> Sequence[str]:
    """Return what is odd about the topic; raise UnsuitableTopicError where it loses messages."""
    findings = look_at_topic(client)
    if findings.loses:
        raise UnsuitableTopicError(findings.loses)
    return findings.odd


def _read(client: AdminClient, name: str) -> dict[str, str]:
    resource = ConfigResource("topic", name)
    answer = client.describe_configs([resource], request_timeout=ANSWER_TIMEOUT_S)[resource]
    return {key: entry.value or "" for key, entry in answer.result(ANSWER_TIMEOUT_S + 1).items()}


def _oddities(name: str, found: dict[str, str]) -> list[str]:
    odd = []
    if 0 <= int(found.get("retention.ms") or -1) < LEAST_RETENTION_MS:
        odd.append(
            f"{name} has retention.ms={found['retention.ms']}: a consumer away for longer loses prices"
        )
    if int(found.get("retention.bytes") or -1) >= 0:
        odd.append(f"{name} has retention.bytes={found['retention.bytes']}: beyond it, prices go unconsumed")
    if found.get("message.timestamp.type", "LogAppendTime") != "LogAppendTime":
        odd.append(f"{name} has message.timestamp.type={found['message.timestamp.type']}, not LogAppendTime")
    return odd


def _too_few_replicas(name: str, found: dict[str, str], replicas: int | None) -> list[str]:
    needed = int(found.get("min.insync.replicas") or 1)
    if replicas is None or needed <= replicas:
        return []
    return [
        f"{name} has min.insync.replicas={needed}, more than a partition has replicas ({replicas}): Kafka"
        " takes none of its prices, and they wait in the outbox"
    ]
