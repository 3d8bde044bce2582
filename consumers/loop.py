"""Kafka -> batches -> a handler, and back to Kafka the offsets of what the handler has stored.

Knows nothing of what the messages mean. Offsets are committed after the handler has returned, so a
message is handled at least once, whatever dies in between.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Generic

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from django.conf import settings

from consumers.group import (
    Begin,
    configuration,
    numbers_of,
    position_of,
    starting_positions,
    trimmed_log,
)
from consumers.offsets import OffsetCommitter
from consumers.pipeline import AnyBatch, BatchHandler, Pipeline
from consumers.topic_watch import TopicWatch
from prices.heartbeat import touch_heartbeat
from prices.outage import Outage

log = structlog.get_logger(__name__)
# librdkafka's own lines come once a retry; what matters is logged here, once.
_silent = logging.getLogger("librdkafka.consumer")
_silent.disabled = True

# After SIGTERM a process has 10 s, and a write may take 7 s of them. What is cut off is read again.
CLOSE_S = 2.0
# A turn may take milliseconds, and a file's time is for a check that looks each few seconds.
TOUCH_INTERVAL_S = 1.0


class ConsumerLoop(Generic[AnyBatch]):
    """Reads KAFKA_TOPIC as a member of KAFKA_CONSUMER_GROUP until it is told to stop.

    `begin` says where to begin in partitions whose position Kafka no longer has; without it that is an error.
    """

    def __init__(self, handler: BatchHandler[AnyBatch], *, begin: Begin | None = None) -> None:
        self._handler = handler
        self._begin = begin
        self._topic = settings.KAFKA_TOPIC
        self._offsets = OffsetCommitter(self._topic)
        self._watch = TopicWatch()
        self._topic_id = ""
        self._kafka = Outage(began="kafka.away", ended="kafka.back")
        self._pipeline = Pipeline(handler)
        self._is_paused = False
        self._consumer = Consumer(
            configuration(on_error=self._on_error, on_commit=self._offsets.on_commit), logger=_silent
        )
        self._last_touch = 0.0
        self._stopping = False

    def stop(self) -> None:
        """End `run` soon; safe to call from a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Read and hand on until `stop`, then store what was read and leave the group.

        Kafka or the handler being away is waited for. Raises LogTrimmedError where messages were
        deleted before they were consumed, TopicReplacedError where the topic was deleted and made anew,
        KafkaException where Kafka refuses for good, and whatever the handler raises besides NotNowError.
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
            self._note_stored(self._pipeline.drain())
        finally:
            self._leave()
        log.info("consumer.stopped")

    def _turn(self) -> None:
        self._touch_if_due()
        self._read()
        self._note_stored(self._pipeline.step())
        self._offsets.commit_if_due(self._consumer)
        self._watch.look()

    def _touch_if_due(self) -> None:
        now = time.monotonic()
        if now - self._last_touch >= TOUCH_INTERVAL_S:
            self._last_touch = now
            touch_heartbeat("consumer")

    def _read(self) -> None:
        # Also while a batch is held and all is paused: rebalances are served from inside here.
        messages = self._take(self._consumer.consume(1, timeout=self._pipeline.wait_for_room()))
        room = self._pipeline.room
        if messages and room:
            self._take(self._consumer.consume(room, timeout=self._pipeline.collect_s))

    def _take(self, messages: Sequence[Message]) -> bool:
        """Hand messages on; tell whether there were any."""
        sound = messages
        if any(map(Message.error, messages)):
            sound = [message for message in messages if message.error() is None]
        if sound:
            self._kafka.end()
            self._pipeline.add(sound)
        if len(sound) < len(messages):
            self._on_refusals(messages)
        return bool(sound)

    def _on_refusals(self, messages: Sequence[Message]) -> None:
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

    def _note_stored(self, next_offsets: Mapping[int, int]) -> None:
        """Have the offsets of stored messages committed."""
        self._offsets.note_stored(next_offsets)
        self._follow_hold()

    def _follow_hold(self) -> None:
        """Read nothing more while the handler refuses a batch."""
        if self._is_paused == self._pipeline.is_held:
            return
        self._is_paused = self._pipeline.is_held
        if self._is_paused:
            self._consumer.pause(self._consumer.assignment())
        else:
            self._consumer.resume(self._consumer.assignment())

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._note_stored(self._pipeline.settle())
        positions = self._starting_positions(partitions)
        consumer.incremental_assign(positions)
        # A partition that comes back may still be paused from before it went.
        if self._is_paused:
            consumer.pause(partitions)
        else:
            consumer.resume(partitions)
        self._offsets.own(positions, topic_id=self._topic_id)
        self._handler.forget()
        if partitions:
            log.info("partitions.assigned", partitions=numbers_of(partitions))

    def _starting_positions(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        while partitions and not self._stopping:
            self._touch_if_due()
            try:
                self._topic_id = self._watch.learn()
                positions = starting_positions(
                    self._consumer, partitions, topic_id=self._topic_id, begin=self._begin
                )
            except KafkaException as error:
                self._kafka.begin(error.args[0].str())
            else:
                self._kafka.end()
                return positions
        return partitions

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._note_stored(self._pipeline.drain())
        # Reaches Kafka before the partitions are given up: librdkafka keeps this order.
        self._offsets.commit(consumer)
        self._let_go(partitions)
        log.info("partitions.revoked", partitions=numbers_of(partitions))

    def _on_lost(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._let_go(partitions)
        log.warning("partitions.lost", partitions=numbers_of(partitions))

    def _let_go(self, partitions: list[TopicPartition]) -> None:
        self._note_stored(self._pipeline.settle())
        gone = numbers_of(partitions)
        self._pipeline.drop(gone)
        self._follow_hold()
        self._offsets.disown(gone)
        self._handler.forget()

    def _on_error(self, error: KafkaError) -> None:
        if error.code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._AUTHENTICATION):
            self._kafka.begin(error.str())

    def _leave(self) -> None:
        # What could not be stored is read again, by this group's next.
        self._pipeline.close()
        # Revokes, and so commits; in a thread, because it waits for that as long as Kafka is away.
        closing = threading.Thread(target=self._consumer.close, daemon=True)
        closing.start()
        closing.join(CLOSE_S)
        self._handler.close()
