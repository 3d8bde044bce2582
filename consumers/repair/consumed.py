"""Up to when all that was published is consumed: what tells a lost row from one that is still to come.

A point is published once Kafka has confirmed its message, so a message that waits was appended no earlier
than the first of its partition that waits. What was published before the first of all that wait is consumed,
whatever partition it went to. An offset that lags behind only what is no message (the end of a transaction,
records that compaction took away) holds nothing back.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, KafkaError, KafkaException, TopicPartition
from django.conf import settings

from consumers.reading.lag import TIMEOUT_S, PartitionLag, wait_until_consumed
from prices.publishing.kafka_clients import make_consumer

CATCH_UP_S = 3.0
# The broker's clock and PostgreSQL's differ by no more.
CLOCKS_AGREE_WITHIN = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Consumed:
    """Points that were published at `until` or before are consumed; None, where that is not known.

    `note` says what is not known, and why.
    """

    until: datetime | None
    note: str | None = None


def read_consumed(*, now: datetime) -> Consumed:
    """Return what is consumed of all that was published until `now`, a time of PostgreSQL's clock.

    Waits up to 3 s for the group to catch up.
    """
    try:
        behind = wait_until_consumed(wait_s=CATCH_UP_S)
        waiting = _first_waiting(behind) if behind else []
    except KafkaException as error:
        return Consumed(None, f"Kafka does not tell what is consumed ({error.args[0].str()})")
    if not waiting:
        return Consumed(now)
    left = f"{sum(lag.messages for lag in behind):,} messages are still to be consumed"
    if None in waiting:
        return Consumed(None, f"{left}, and since when is not known: the topic has no times of the broker")
    until = min(each for each in waiting if each) - CLOCKS_AGREE_WITHIN
    return Consumed(
        min(until, now), f"{left}: what was published after {until:%Y-%m-%d %H:%M:%S} may be one of them"
    )


def _first_waiting(behind: Sequence[PartitionLag]) -> list[datetime | None]:
    """Return when the first message that waits in each partition was appended; None where that is not told.

    Partitions without such a message are left out.
    """
    # Transactions that are open or were aborted hold the group up, too.
    options = {
        "isolation.level": "read_uncommitted",
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
    }
    consumer = make_consumer(options)
    try:
        consumer.assign(
            [TopicPartition(settings.KAFKA_TOPIC, lag.partition, lag.next_offset) for lag in behind]
        )
        return _read_first(consumer, {lag.partition for lag in behind})
    finally:
        consumer.close()


def _read_first(consumer: Consumer, partitions: set[int]) -> list[datetime | None]:
    times: list[datetime | None] = []
    deadline = time.monotonic() + TIMEOUT_S
    while partitions:
        message = consumer.poll(0.1)
        if message is None:
            if time.monotonic() > deadline:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            continue
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            raise KafkaException(error)
        if message.partition() in partitions:
            partitions.discard(message.partition())
            if error is None:
                times.append(_append_time(*message.timestamp()))
    return times


def _append_time(kind: int, milliseconds: int) -> datetime | None:
    if kind != TIMESTAMP_LOG_APPEND_TIME:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
