"""Kafka -> batches -> a handler, and back to Kafka the offsets of what the handler has stored.

Knows nothing of what the messages mean. Offsets are committed after the handler has returned, so a
message is handled at least once, whatever dies in between.

Where the handler refuses a batch, and where partitions change hands, all that is in memory and not stored
is dropped, and every partition is read again from what is stored. So no offset can run ahead of the store,
and nothing is ever paused in librdkafka, which loses what it was told while a pause is on its way.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Generic

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from django.conf import settings

from consumers.reading.group import GapRecovery, OffsetReset, numbers_of, position_of, trimmed_log
from consumers.reading.membership import Member, is_final, is_passing
from consumers.reading.offsets import OffsetCommitter
from consumers.reading.pipeline import AnyBatch, Backoff, BatchHandler, Pipeline, RetryLaterError
from consumers.reading.watches import StallWatch
from prices.heartbeat import touch_heartbeat
from prices.outage_log import Outage

log = structlog.get_logger(__name__)

# Before partitions are given up, what was read of them is stored; Kafka waits for that, but not for long.
FLUSH_S = 8.0
# After SIGTERM a process has 10 s. What is cut off is read again.
STOP_FLUSH_S = 6.0
CLOSE_S = 2.0
# A turn may take milliseconds, and a file's time is for a check that looks each few seconds.
TOUCH_INTERVAL_S = 1.0
# How long to wait between two looks at whether the handler may be asked again.
IDLE_S = 0.05


class ConsumerLoop(Generic[AnyBatch]):
    """Reads KAFKA_TOPIC as a member of KAFKA_CONSUMER_GROUP until it is told to stop.

    `reset` says where to begin in partitions whose position Kafka no longer has; without it that is an error.
    """

    def __init__(self, handler: BatchHandler[AnyBatch], *, reset: OffsetReset | None = None) -> None:
        self._handler = handler
        self._reset = reset
        self._topic = settings.KAFKA_TOPIC
        self._offsets = OffsetCommitter(self._topic)
        self._member = Member(
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
            on_commit=self._offsets.on_commit,
        )
        self._kafka = self._member.kafka
        self._backoff = Backoff(Outage(began="batch.refused", ended="batch.accepted"))
        self._pipeline = Pipeline(handler, on_stored=self._on_stored)
        # Whether what comes from Kafka is dropped until each partition was sought to what is stored.
        self._must_rewind = False
        self._gaps = GapRecovery(handler, is_stopped=lambda: self._stopping)
        # The offset after what was taken of each partition, and whether that is all that had come.
        self._taken: dict[int, int] = {}
        self._is_drained = False
        self._stalls = StallWatch()
        self._last_touch = 0.0
        self._stopping = False

    def stop(self) -> None:
        """End `run` soon; safe to call from a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Read and hand on until `stop`, then store what was read and leave the group.

        Kafka or the handler being away is waited for. Raises LogTrimmedError where messages were
        deleted before they were consumed, TopicReplacedError where the topic was deleted and made anew,
        StalledError where Kafka has messages that do not come, KafkaException where Kafka refuses to tell
        where to begin, or does not tell it within 30 s, and whatever the handler raises besides
        RetryLaterError.
        """
        log.info("consumer.started", topic=self._topic, group=settings.KAFKA_CONSUMER_GROUP)
        try:
            self._member.join()
            while not self._stopping:
                try:
                    self._turn()
                except KafkaException as error:
                    if not is_final(error.args[0]):
                        raise
                    self._kafka.begin(error.args[0].str())
                    self._rejoin()
            self._flush(timeout_s=STOP_FLUSH_S)
        finally:
            self._leave()
        log.info("consumer.stopped")

    def _rejoin(self) -> None:
        self._member.rejoin()
        self._release(self._offsets.positions)

    def _turn(self) -> None:
        self._touch_if_due()
        if self._backoff.is_waiting or (self._must_rewind and self._pipeline.is_writing):
            self._wait()
        elif self._gaps.is_needed:
            self._recover()
        elif self._must_rewind:
            self._rewind()
        else:
            self._read()
            self._step()
            self._seek_stalled()
        self._offsets.commit_if_due(self._member.consumer)
        self._member.topic.look()
        if self._member.watch.is_lost():
            log.warning("membership.lost", state=self._member.watch.state)
            self._rejoin()

    def _touch_if_due(self) -> None:
        now = time.monotonic()
        hangs = self._pipeline.is_overdue or self._gaps.is_overdue
        if now - self._last_touch >= TOUCH_INTERVAL_S and not hangs:
            self._last_touch = now
            touch_heartbeat("consumer")

    def _wait(self) -> None:
        """Serve rebalances, and drop the messages that come with it: they are read again."""
        self._take(self._member.consumer.consume(1, timeout=0))
        time.sleep(IDLE_S)

    def _rewind(self) -> None:
        """Have each partition read again from what is stored."""
        self._pipeline.clear()
        for position in self._offsets.positions:
            try:
                self._member.consumer.seek(position)
            except KafkaException as error:
                # A partition that is not begun yet will be at its position, of which nothing was read.
                if error.args[0].code() != KafkaError._STATE:
                    self._kafka.begin(error.args[0].str())
                    self._wait()
                    return
        self._must_rewind = False
        self._taken = {each.partition: each.offset for each in self._offsets.positions}
        self._stalls.follow(self._taken)

    def _recover(self) -> None:
        """Have the handler store what nobody has read, and what is not read from here on."""
        try:
            done = self._gaps.step()
        except RetryLaterError as error:
            self._refuse(error)
            return
        except KafkaException as error:
            if not is_passing(error.args[0]):
                raise
            self._refuse(RetryLaterError(error.args[0].str()))
            return
        if done is None:
            self._wait()
            return
        self._backoff.accept()
        for each in done:
            log.warning(each.gap.value, partitions=numbers_of(each.positions), recovered=each.rows)
            self._offsets.mark_stored({at.partition: at.offset for at in each.positions})

    def _read(self) -> None:
        # Also where there is no capacity: rebalances are served from inside here.
        first = self._member.consumer.consume(1, timeout=self._pipeline.wait_for_capacity())
        self._is_drained = not first
        has_some = self._take(first)
        capacity = self._pipeline.capacity
        if has_some and capacity:
            more = self._member.consumer.consume(capacity, timeout=self._pipeline.collect_s)
            self._is_drained = len(more) < capacity
            self._take(more)

    def _take(self, messages: Sequence[Message]) -> bool:
        """Hand messages on; return whether any was: while all is to be read again they are dropped."""
        sound = messages
        if any(map(Message.error, messages)):
            sound = [message for message in messages if message.error() is None]
        # Where partitions changed hands within the call, it is not known which of the messages came before.
        is_taken = bool(sound) and not self._must_rewind
        if is_taken:
            self._kafka.end()
            next_offsets = self._pipeline.add(sound)
            self._taken |= next_offsets
            self._stalls.note(next_offsets)
        if len(sound) < len(messages):
            self._on_refusals(messages)
        return is_taken

    def _on_refusals(self, messages: Sequence[Message]) -> None:
        for message in messages:
            error = message.error()
            if error is not None:
                self._on_refusal(message, error)

    def _on_refusal(self, message: Message, error: KafkaError) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            self._on_end(position_of(message))
            return
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise trimmed_log(self._member.consumer, position_of(message))
        if is_final(error):
            raise KafkaException(error)
        self._kafka.begin(error.str())

    def _on_end(self, end: TopicPartition) -> None:
        if not self._must_rewind and end.partition in self._taken:
            self._kafka.end()
            self._stalls.note([end.partition])
            self._offsets.mark_end(end.partition, end.offset, after=self._taken[end.partition])
            self._taken[end.partition] = max(self._taken[end.partition], end.offset)

    def _seek_stalled(self) -> None:
        if self._is_drained and not self._must_rewind:
            for partition in self._stalls.look(self._taken):
                log.warning("partition.stalled", partition=partition, position=self._taken[partition])
                # Where that fails, too, nothing comes, and the next look ends the loop.
                with suppress(KafkaException):
                    self._member.consumer.seek(TopicPartition(self._topic, partition, self._taken[partition]))

    def _step(self) -> None:
        if self._must_rewind:
            return
        try:
            self._pipeline.step()
        except RetryLaterError as error:
            self._refuse(error)

    def _flush(self, *, timeout_s: float) -> None:
        """Store what was read, unless the handler refuses."""
        if self._must_rewind:
            return
        try:
            self._pipeline.flush(timeout_s=timeout_s)
        except RetryLaterError as error:
            self._refuse(error)

    def _refuse(self, error: RetryLaterError) -> None:
        self._backoff.refuse(str(error))
        self._must_rewind = True

    def _on_stored(self, next_offsets: Mapping[int, int]) -> None:
        self._offsets.mark_stored(next_offsets)
        self._backoff.accept()

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if not partitions:
            consumer.incremental_assign([])
            return
        self._flush(timeout_s=FLUSH_S)
        starts = self._member.starts(partitions, reset=self._reset, is_stopped=lambda: self._stopping)
        consumer.incremental_assign([start.position for start in starts])
        self._offsets.assign(
            [start.position for start in starts],
            topic_id=self._member.topic_id,
            uncommitted=[start.position.partition for start in starts if start.is_new],
        )
        self._gaps.add(starts)
        self._drop_unstored()
        log.info("partitions.assigned", partitions=numbers_of(partitions))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._flush(timeout_s=FLUSH_S)
        # Reaches Kafka before the partitions are given up: librdkafka keeps this order.
        self._offsets.commit(consumer)
        self._release(partitions)
        log.info("partitions.revoked", partitions=numbers_of(partitions))

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._release(partitions)
        log.warning("partitions.lost", partitions=numbers_of(partitions))

    def _release(self, partitions: list[TopicPartition]) -> None:
        self._drop_unstored()
        gone = numbers_of(partitions)
        self._offsets.revoke(gone)
        self._gaps.drop(gone)

    def _drop_unstored(self) -> None:
        self._pipeline.clear()
        self._must_rewind = True

    def _leave(self) -> None:
        self._gaps.close(timeout_s=CLOSE_S)
        self._member.leave(timeout_s=CLOSE_S)
        if not self._pipeline.is_writing:
            self._handler.close()
