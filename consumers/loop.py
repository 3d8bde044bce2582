"""Kafka -> batches -> a handler, and back to Kafka the offsets of what the handler has stored.

Knows nothing of what the messages mean. Offsets are committed after the handler has returned, so a
message is handled at least once, whatever dies in between.
"""

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from django.conf import settings

from consumers.group import (
    Begin,
    Start,
    configuration,
    numbers_of,
    position_of,
    starting_positions,
    trimmed_log,
)
from consumers.offsets import OffsetCommitter
from consumers.outage import Outage
from consumers.topic_watch import TopicWatch
from prices.heartbeat import touch_heartbeat

log = structlog.get_logger(__name__)
# librdkafka's own lines come once a retry; what matters is logged here, once.
_silent = logging.getLogger("librdkafka.consumer")
_silent.disabled = True

Batch = TypeVar("Batch")

MAX_BATCH = 5_000
# Reached by large messages only: an event has some 200 bytes.
MAX_BATCH_BYTES = 8_000_000
POLL_S = 0.2
# How long is waited for more messages while a batch is being written.
COLLECT_S = 0.005
FIRST_RETRY_S = 0.1
LAST_RETRY_S = 2.0
# After SIGTERM a process has 10 s, and a batch that is being written may take 7 s of them.
CLOSE_S = 2.0


class NotNowError(Exception):
    """The handler cannot take the batch now; the loop keeps it and tries again."""


class BatchHandler(Protocol[Batch]):
    """What the loop gives its batches to: each is read in the loop's thread, and written in another."""

    def read(self, messages: Sequence[Message]) -> Batch:
        """Make of messages what `write` takes, while an earlier batch may be being written."""

    def write(self, batch: Batch) -> None:
        """Store a batch for good, each partition's messages in their order; some may come twice.

        Raises NotNowError where the same messages should come again later.
        """

    def forget(self) -> None:
        """Drop what is remembered of earlier batches: partitions have changed hands. Never during a write."""

    def close(self) -> None:
        """Let go of what is held open."""


@dataclass(frozen=True, slots=True)
class _Work(Generic[Batch]):
    """Messages, and what the handler made of them."""

    messages: list[Message]
    batch: Batch


class ConsumerLoop(Generic[Batch]):
    """Reads KAFKA_TOPIC as a member of KAFKA_CONSUMER_GROUP until it is told to stop.

    Three batches at most are on their way: one being written, one ready for that, one being collected.
    `begin` says where to begin in partitions whose position Kafka no longer has; without it that is an error.
    """

    def __init__(self, handler: BatchHandler[Batch], *, begin: Begin | None = None) -> None:
        self._handler = handler
        self._begin = begin
        self._topic = settings.KAFKA_TOPIC
        self._offsets = OffsetCommitter(self._topic)
        self._watch = TopicWatch()
        self._topic_id = ""
        self._kafka = Outage(began="kafka.away", ended="kafka.back")
        self._holding = Outage(began="batch.held", ended="batch.released")
        self._consumer = Consumer(
            configuration(on_error=self._on_error, on_commit=self._offsets.on_commit), logger=_silent
        )
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._writing: tuple[_Work[Batch], Future[None]] | None = None
        self._next: _Work[Batch] | None = None
        self._batch: list[Message] = []
        self._batch_bytes = 0
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
            self._write_out()
        finally:
            self._leave()
        log.info("consumer.stopped")

    def _turn(self) -> None:
        touch_heartbeat("consumer")
        self._read()
        self._finish_write()
        self._begin_write()
        self._offsets.commit_if_due(self._consumer)
        self._watch.look()

    def _read(self) -> None:
        # Also while a batch is held and all is paused: rebalances are served from inside here.
        self._take(self._consumer.consume(1, timeout=self._wait_s()))
        if self._batch and not self._is_full():
            room = MAX_BATCH - len(self._batch)
            self._take(self._consumer.consume(room, timeout=COLLECT_S if self._writing else 0))

    def _wait_s(self) -> float:
        if self._held_until is not None:
            return POLL_S
        if self._writing is None:
            return 0 if self._next or self._batch else POLL_S
        if self._is_full():
            wait([self._writing[1]], timeout=POLL_S)
            return 0
        return COLLECT_S

    def _is_full(self) -> bool:
        return len(self._batch) >= self._most or self._batch_bytes >= MAX_BATCH_BYTES

    def _take(self, messages: Sequence[Message]) -> None:
        sound = [message for message in messages if message.error() is None]
        if sound:
            self._kafka.end()
            self._batch += sound
            self._batch_bytes += _bytes_of(sound)
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

    def _begin_write(self) -> None:
        """Hand a batch to the writer where it is free; have one ready for it where much has come."""
        if time.monotonic() < (self._held_until or 0.0):
            return
        if self._next is None and self._batch and (self._writing is None or self._is_full()):
            messages, left = self._batch[: self._most], self._batch[self._most :]
            self._keep(left)
            self._next = _Work(messages, self._handler.read(messages))
        if self._writing is None and self._next is not None:
            work, self._next = self._next, None
            self._writing = work, self._writer.submit(self._handler.write, work.batch)

    def _finish_write(self) -> None:
        """Take the writer's result, if there is one."""
        if self._writing is None or not self._writing[1].done():
            return
        (work, future), self._writing = self._writing, None
        try:
            future.result()
        except NotNowError as error:
            self._hold(work, str(error))
            return
        self._offsets.note_stored(work.messages)
        self._most = min(self._most + self._most // 8 + 1, MAX_BATCH)
        self._release()

    def _hold(self, work: _Work[Batch], reason: str) -> None:
        """Keep the messages for another try, with partitions paused so that they do not get more."""
        self._holding.begin(reason)
        self._keep([*work.messages, *self._take_back(), *self._batch])
        if self._held_until is None:
            self._consumer.pause(self._consumer.assignment())
        self._held_until = time.monotonic() + self._retry_s
        self._retry_s = min(self._retry_s * 2, LAST_RETRY_S)
        # What is too much for one transaction would be so for ever: the next try is half as big.
        self._most = max(len(work.messages) // 2, 1)

    def _keep(self, messages: list[Message]) -> None:
        self._batch = messages
        self._batch_bytes = _bytes_of(messages)

    def _take_back(self) -> list[Message]:
        """Give the messages of the batch that was ready to be written, which then is no more."""
        ready, self._next = self._next, None
        return ready.messages if ready else []

    def _release(self) -> None:
        self._holding.end()
        self._retry_s = FIRST_RETRY_S
        if self._held_until is not None:
            self._held_until = None
            self._consumer.resume(self._consumer.assignment())

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._wait_for_write()
        start = self._starting_positions(partitions)
        consumer.incremental_assign(start.positions)
        # A partition that comes back may still be paused from before it went.
        if self._held_until is None:
            consumer.resume(partitions)
        else:
            consumer.pause(partitions)
        self._offsets.own(numbers_of(partitions), topic_id=self._topic_id)
        self._offsets.note_moved(start.moved)
        self._handler.forget()
        if partitions:
            log.info("partitions.assigned", partitions=numbers_of(partitions))

    def _starting_positions(self, partitions: list[TopicPartition]) -> Start:
        while partitions and not self._stopping:
            touch_heartbeat("consumer")
            try:
                self._topic_id = self._watch.learn()
                start = starting_positions(
                    self._consumer, partitions, topic_id=self._topic_id, begin=self._begin
                )
            except KafkaException as error:
                self._kafka.begin(error.args[0].str())
            else:
                self._kafka.end()
                return start
        return Start(partitions, [])

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
        self._wait_for_write()
        gone = numbers_of(partitions)
        left = [*self._take_back(), *self._batch]
        self._keep([message for message in left if message.partition() not in gone])
        if not self._batch:
            self._release()
        self._offsets.disown(gone)
        self._handler.forget()

    def _on_error(self, error: KafkaError) -> None:
        if error.code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._AUTHENTICATION):
            self._kafka.begin(error.str())

    def _wait_for_write(self) -> None:
        """Let a batch that is being written end; PostgreSQL's time-outs see to it that it does."""
        if self._writing is not None:
            wait([self._writing[1]])
            self._finish_write()

    def _write_out(self) -> None:
        self._wait_for_write()
        while (self._next or self._batch) and self._held_until is None:
            self._begin_write()
            self._wait_for_write()

    def _leave(self) -> None:
        # A write that is under way ends; what could not be stored is read again, by this group's next.
        self._writer.shutdown()
        self._writing, self._next = None, None
        self._keep([])
        # Revokes, and so commits; in a thread, because it waits for that as long as Kafka is away.
        closing = threading.Thread(target=self._consumer.close, daemon=True)
        closing.start()
        closing.join(CLOSE_S)
        self._handler.close()


def _bytes_of(messages: Sequence[Message]) -> int:
    return sum(len(each.value() or b"") + len(each.key() or b"") for each in messages)
