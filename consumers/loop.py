"""Kafka -> batches -> a handler, and back to Kafka the offsets of what the handler has stored.

Knows nothing of what the messages mean. Offsets are committed after the handler has returned, so a
message is handled at least once, whatever dies in between.
"""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Protocol

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from django.conf import settings

from consumers.group import configuration, numbers_of, position_of, starting_positions, trimmed_log
from consumers.messages import ReceivedMessage, received
from consumers.offsets import OffsetCommitter
from consumers.outage import Outage
from prices.heartbeat import touch_heartbeat

log = structlog.get_logger(__name__)
# librdkafka's own lines come once a retry; what matters is logged here, once.
_silent = logging.getLogger("librdkafka.consumer")
_silent.disabled = True

MAX_BATCH = 5_000
POLL_S = 0.2
FIRST_RETRY_S = 0.1
LAST_RETRY_S = 2.0
# After SIGTERM a process has 10 s, and a batch that is being written may take 7 s of them.
CLOSE_S = 2.0


class NotNowError(Exception):
    """The handler cannot take the batch now; the loop keeps it and tries again."""


class BatchHandler(Protocol):
    """What the loop gives its batches to."""

    def write(self, messages: Sequence[ReceivedMessage]) -> None:
        """Store a batch for good, each partition's messages in their order; some may come twice.

        Raises NotNowError where the same messages should come again later.
        """

    def forget(self) -> None:
        """Drop what is remembered of earlier batches: partitions have changed hands."""

    def close(self) -> None:
        """Let go of what is held open."""


class ConsumerLoop:
    """Reads KAFKA_TOPIC as a member of KAFKA_CONSUMER_GROUP until it is told to stop."""

    def __init__(self, handler: BatchHandler) -> None:
        self._handler = handler
        self._topic = settings.KAFKA_TOPIC
        self._offsets = OffsetCommitter(self._topic)
        self._kafka = Outage(began="kafka.away", ended="kafka.back")
        self._writing = Outage(began="batch.held", ended="batch.released")
        self._consumer = Consumer(
            configuration(on_error=self._on_error, on_commit=self._offsets.on_commit), logger=_silent
        )
        self._batch: list[ReceivedMessage] = []
        self._most = MAX_BATCH
        self._retry_s = FIRST_RETRY_S
        self._held_until: float | None = None
        self._stopping = False

    def stop(self) -> None:
        """End `run` soon; safe to call from a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Read and hand on until `stop`, then store what was read and leave the group.

        Kafka or the handler being away is waited for. Raises LogTrimmedError where messages were
        deleted before they were consumed, KafkaException where Kafka refuses for good, and whatever
        the handler raises besides NotNowError.
        """
        log.info("consumer.started", topic=self._topic, group=settings.KAFKA_CONSUMER_GROUP)
        try:
            self._consumer.subscribe(
                [self._topic],
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_lost,
            )
            while not self._stopping:
                self._turn()
            self._write_out()
        finally:
            self._leave()
        log.info("consumer.stopped")

    def _turn(self) -> None:
        touch_heartbeat("consumer")
        self._read()
        if self._batch and time.monotonic() >= (self._held_until or 0.0):
            self._write()
        self._offsets.commit_if_due(self._consumer)

    def _read(self) -> None:
        # Also while a batch is held and all is paused: rebalances are served from inside here.
        more_to_write = self._batch and self._held_until is None
        self._take(self._consumer.consume(1, timeout=0 if more_to_write else POLL_S))
        room = MAX_BATCH - len(self._batch)
        if self._batch and room > 0:
            self._take(self._consumer.consume(room, timeout=0))

    def _take(self, messages: Sequence[Message]) -> None:
        sound = [received(message) for message in messages if message.error() is None]
        if sound:
            self._kafka.end()
            self._batch += sound
        for message in messages:
            error = message.error()
            if error is not None:
                self._on_refusal(message, error)

    def _on_refusal(self, message: Message, error: KafkaError) -> None:
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise trimmed_log(self._consumer, position_of(message))
        if error.fatal():
            raise KafkaException(error)
        self._kafka.begin(error.str())

    def _write(self) -> None:
        part = self._batch[: self._most]
        try:
            self._handler.write(part)
        except NotNowError as error:
            self._hold(str(error), tried=len(part))
            return
        del self._batch[: len(part)]
        self._offsets.note_stored(part)
        self._most = min(self._most + self._most // 8 + 1, MAX_BATCH)
        self._release()

    def _hold(self, reason: str, *, tried: int) -> None:
        """Keep the batch for another try, with partitions paused so that it does not grow."""
        self._writing.begin(reason)
        if self._held_until is None:
            self._consumer.pause(self._consumer.assignment())
        self._held_until = time.monotonic() + self._retry_s
        self._retry_s = min(self._retry_s * 2, LAST_RETRY_S)
        # What is too much for one transaction would be so for ever: the next try is half as big.
        self._most = max(tried // 2, 1)

    def _release(self) -> None:
        self._writing.end()
        self._retry_s = FIRST_RETRY_S
        if self._held_until is not None:
            self._held_until = None
            self._consumer.resume(self._consumer.assignment())

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.incremental_assign(self._starting_positions(partitions))
        # A partition that comes back may still be paused from before it went.
        if self._held_until is None:
            consumer.resume(partitions)
        else:
            consumer.pause(partitions)
        self._offsets.own(numbers_of(partitions))
        self._handler.forget()
        if partitions:
            log.info("partitions.assigned", partitions=numbers_of(partitions))

    def _starting_positions(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        while not self._stopping:
            touch_heartbeat("consumer")
            try:
                positions = starting_positions(self._consumer, partitions)
            except KafkaException as error:
                self._kafka.begin(error.args[0].str())
            else:
                self._kafka.end()
                return positions
        return partitions

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._write_out()
        # Reaches Kafka before the partitions are given up: librdkafka keeps this order.
        self._offsets.commit(consumer)
        self._let_go(partitions)
        log.info("partitions.revoked", partitions=numbers_of(partitions))

    def _on_lost(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._let_go(partitions)
        log.warning("partitions.lost", partitions=numbers_of(partitions))

    def _let_go(self, partitions: list[TopicPartition]) -> None:
        gone = numbers_of(partitions)
        self._batch = [message for message in self._batch if message.partition not in gone]
        if not self._batch:
            self._release()
        self._offsets.disown(gone)
        self._handler.forget()

    def _on_error(self, error: KafkaError) -> None:
        if error.code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._AUTHENTICATION):
            self._kafka.begin(error.str())

    def _write_out(self) -> None:
        while self._batch and self._held_until is None:
            self._write()

    def _leave(self) -> None:
        # What could not be stored is read again, by this group's next.
        self._batch = []
        # Revokes, and so commits; in a thread, because it waits for that as long as Kafka is away.
        closing = threading.Thread(target=self._consumer.close, daemon=True)
        closing.start()
        closing.join(CLOSE_S)
        self._handler.close()
