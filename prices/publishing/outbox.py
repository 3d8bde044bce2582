"""The outbox: stored points go to Kafka, and only what Kafka confirmed counts as published.

A point may be sent more than once, never zero times: whatever a process could not publish (it died,
Kafka was away) stays without `published_at`, and the sweep sends it.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException, Message, Producer
from django.conf import settings
from django.db.models import Exists, OuterRef
from django.db.models.functions import Now

from prices.clock import database_now
from prices.database.advisory_locks import try_advisory_lock
from prices.database.retry import retry_database
from prices.database.uuid7 import epoch_ms, first_id_at, made_at_ms
from prices.models import PricePoint, RawMarketData, SymbolAverage
from prices.publishing.events import MAX_AHEAD, encode_event
from prices.publishing.kafka_clients import LastingClient, delivery_error, make_producer

log = structlog.get_logger(__name__)

DELIVERY_TIMEOUT_S = 2.0
PAUSE_AFTER_FAILURE_S = 3.0
SWEEP_BATCH = 1000
MAX_AHEAD_MS = MAX_AHEAD // timedelta(milliseconds=1)
# Then it is asked once more, by what is sent: the broker's clock may have been set, too.
KAFKAS_CLOCK_HOLDS_S = 5.0
SWEEP_LOCK = "outbox sweep"
# Ids begin with milliseconds.
_IDS_OF_A_DAY = 86_400_000 << 80


# What Kafka says of a message itself: the next one may be taken.
_REFUSALS = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.DUPLICATE_SEQUENCE_NUMBER,
    }
)


@dataclass(frozen=True, slots=True)
class Publication:
    """What became of a call: how many points Kafka confirmed and which it refused, of how many.

    A batch is refused as a whole: points of it may be taken one by one. `early`: so many wait until it is
    their time by Kafka's clock.
    """

    confirmed: int
    attempted: int
    refused: Sequence[UUID] = ()
    early: int = 0

    @property
    def is_answered(self) -> bool:
        """Whether Kafka had a word on each point, or needs none yet."""
        return self.confirmed + len(self.refused) + self.early == self.attempted


class _KafkaClock:
    """The broker's clock, as it is known from the times at which the topic's messages were appended.

    The consumer refuses ids that are far ahead of it. A topic of producers' times says nothing of it.
    """

    def __init__(self) -> None:
        self._told_at = float("-inf")
        self._told_ms = 0
        self._is_behind = False

    def note(self, message: Message) -> None:
        """Learn from a message that Kafka has taken."""
        kind, milliseconds = message.timestamp()
        if kind == TIMESTAMP_LOG_APPEND_TIME:
            self._told_at, self._told_ms = time.monotonic(), milliseconds

    def is_early(self, point_id: UUID) -> bool:
        """Return whether the consumer would refuse a point sent now; False where that is not known."""
        return self.is_behind(made_at_ms(point_id))

    def is_behind(self, moment_ms: int) -> bool:
        """Return whether it is behind a moment by more than points may be; False where that is not known."""
        return self._is_known and moment_ms > self._told_ms + self._told_s_ago * 1000 + MAX_AHEAD_MS

    def in_time(self, points: Sequence[PricePoint]) -> list[PricePoint]:
        """Return the points that the consumer will take, as far as that is known.

        Where it was behind when it was last known, that is one alone, which tells: what is refused is kept.
        """
        if self._is_behind and not self._is_known:
            return list(points[:1])
        return [point for point in points if not self.is_early(point.id)]

    @property
    def _told_s_ago(self) -> float:
        return time.monotonic() - self._told_at

    @property
    def _is_known(self) -> bool:
        return self._told_s_ago < KAFKAS_CLOCK_HOLDS_S

    def tell(self, *, is_behind: bool) -> None:
        """Say once in the log that points have to wait for it, and once that they need not any more."""
        was_behind, self._is_behind = self._is_behind, is_behind
        if is_behind and not was_behind:
            log.warning("outbox.kafka_clock_behind", beyond_s=MAX_AHEAD_MS // 1000)
        elif was_behind and not is_behind:
            log.info("outbox.kafka_clock_agrees")


class Publisher:
    """A process's own Kafka producer. One must not cross a fork: use `publisher()`."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._paused_until = 0.0
        self._kafka_away = False
        self._kafkas_clock = _KafkaClock()
        self._producers = LastingClient(_make_producer)

    def publish(
        self,
        points: Sequence[PricePoint],
        *,
        polls: Mapping[UUID, UUID | None],
        now: datetime | None = None,
    ) -> Publication:
        """Send the points and wait up to 2 s; mark those that Kafka confirmed, and return how many and which.

        `polls` gives the poll run of each point's raw answer, and `now` the time by PostgreSQL's clock, where
        they were not made just now. For a few seconds after a failure nothing is tried: the sweep comes back
        to what stayed behind, and to what lies too far ahead of Kafka's clock.
        """
        if not self._may_send():
            return Publication(0, len(points))
        in_time = self._kafkas_clock.in_time(points)
        deliveries = self._send(in_time, polls, now)
        early = len(points) - len(in_time) + deliveries.early
        publication = Publication(len(deliveries.confirmed), len(points), tuple(deliveries.refused), early)
        self._note_outcome(failed=not publication.is_answered, reason=deliveries.reason)
        self._producers.note(is_answered=publication.is_answered)
        # Points of long ago are not early, however far it is behind.
        is_behind = early > 0 or (now is not None and self._kafkas_clock.is_behind(epoch_ms(now)))
        self._kafkas_clock.tell(is_behind=is_behind)
        retry_database(lambda: mark_published(deliveries.confirmed))
        return publication

    def _may_send(self) -> bool:
        with self._lock:
            now = time.monotonic()
            if now < self._paused_until:
                return False
            if self._kafka_away:
                # One caller tries whether Kafka is back; the others have polls to do.
                self._paused_until = now + PAUSE_AFTER_FAILURE_S
            return True

    def _note_outcome(self, *, failed: bool, reason: str) -> None:
        with self._lock:
            self._paused_until = time.monotonic() + PAUSE_AFTER_FAILURE_S if failed else 0.0
            was_away, self._kafka_away = self._kafka_away, failed
        if failed and not was_away:
            log.warning("outbox.kafka_away", reason=reason, retry_s=PAUSE_AFTER_FAILURE_S)
        elif was_away and not failed:
            log.info("outbox.kafka_back")

    def _send(
        self, points: Sequence[PricePoint], polls: Mapping[UUID, UUID | None], now: datetime | None
    ) -> "_Deliveries":
        deliveries = _Deliveries(len(points), self._kafkas_clock)
        now_ms = 0 if now is None else epoch_ms(now)
        try:
            producer = self._producers.get()
        except KafkaException as error:
            # Settings that librdkafka does not take, such as the file of a certificate that is gone.
            deliveries.reason = error.args[0].str()
            return deliveries
        for point in points:
            message = encode_event(point, poll=polls.get(point.raw))
            try:
                producer.produce(
                    settings.KAFKA_TOPIC,
                    key=message.key,
                    value=message.value,
                    headers=message.headers,
                    # By PostgreSQL's clock, for a topic that keeps producers' times: Kafka refuses those that
                    # are over an hour ahead of its own, the consumer ids that are far ahead of them.
                    timestamp=max(made_at_ms(point.id), now_ms),
                    on_delivery=deliveries.report_for(point.id),
                )
            except BufferError as error:
                deliveries.failed(str(error))
            except KafkaException as error:
                deliveries.note(point.id, error.args[0])
        try:
            _wait_for(deliveries, producer)
        except KafkaException as error:
            # What ended the producer for good: Kafka lets this user write nothing, or took its id away.
            deliveries.reason = error.args[0].str()
            self._producers.drop(producer)
        return deliveries


def _make_producer() -> Producer:
    # librdkafka gives up when the caller does: nothing is left to be sent behind its back.
    return make_producer({"linger.ms": 2, "message.timeout.ms": int(DELIVERY_TIMEOUT_S * 1000)})


def _wait_for(deliveries: "_Deliveries", producer: Producer) -> None:
    """Wait up to 2 s for the reports; raise KafkaException where the producer has ended for good."""
    deadline = time.monotonic() + DELIVERY_TIMEOUT_S
    # Once at least: a producer that has ended refuses each message at once, and only here tells why.
    producer.poll(0)
    while not deliveries.complete and time.monotonic() < deadline:
        producer.poll(0.01)


class _Deliveries:
    """The delivery reports of one call; any thread that polls the producer may bring them."""

    def __init__(self, expected: int, kafkas_clock: _KafkaClock) -> None:
        self.confirmed: list[UUID] = []
        self.refused: list[UUID] = []
        # What Kafka took, and the consumer will refuse: it is sent again in its time.
        self.early = 0
        self._kafkas_clock = kafkas_clock
        # Why the last one failed that did.
        self.reason = "no answer"
        self._open = expected
        self._lock = threading.Lock()

    @property
    def complete(self) -> bool:
        return self._open == 0

    def failed(self, reason: str) -> None:
        with self._lock:
            self._open -= 1
            self.reason = reason

    def report_for(self, point_id: UUID) -> Callable[[KafkaError | None, Message], None]:
        def report(error: KafkaError | None, message: Message) -> None:
            error = delivery_error(error, message)
            if error is None:
                self._kafkas_clock.note(message)
            self.note(point_id, error)

        return report

    def note(self, point_id: UUID, error: KafkaError | None) -> None:
        with self._lock:
            self._open -= 1
            if error is None and self._kafkas_clock.is_early(point_id):
                self.early += 1
                return
            if error is None:
                self.confirmed.append(point_id)
                return
            self.reason = error.str()
            if error.code() in _REFUSALS:
                self.refused.append(point_id)


_publisher: Publisher | None = None
_publisher_lock = threading.Lock()


def publisher() -> Publisher:
    """Return this process's publisher, made at its first use and made anew after a fork."""
    global _publisher
    with _publisher_lock:
        if _publisher is None or _publisher.pid != os.getpid():
            _publisher = Publisher()
        return _publisher


def forget_publisher() -> None:
    """Drop this process's publisher: the next use makes one for the settings as they are then.

    For tests: in a process that serves, settings do not change.
    """
    global _publisher
    with _publisher_lock:
        _publisher = None


def mark_published(point_ids: Sequence[UUID]) -> None:
    """Note that Kafka has confirmed these points."""
    if point_ids:
        PricePoint.objects.filter(id__in=point_ids).update(published_at=Now())


def sweep() -> int:
    """Publish what is pending and older than OUTBOX_SWEEP_AFTER_S, in id order; return how much was.

    One sweep runs at a time, over all processes; a second one ends at once. It ends early where
    Kafka does not answer. A point that Kafka refuses is passed over, and tried again by the next sweep.
    """
    published, after = 0, None
    refused: list[UUID] = []
    # A session lock: no transaction is held open while Kafka is waited for.
    with try_advisory_lock(SWEEP_LOCK) as lock:
        # Where PostgreSQL ended the session, another sweep may have begun.
        while lock and (points := _pending_points(after, now=(now := database_now()))):
            after = points[-1].id
            publication = publisher().publish(points, polls=_polls_of(points), now=now)
            published += publication.confirmed
            if not publication.is_answered:
                break
            alone = [point for point in points if point.id in publication.refused]
            taken, left = _publish_alone(alone, now=now)
            published, refused = published + taken, refused + left
    if refused:
        log.error("outbox.refused_by_kafka", points=[str(each) for each in refused[:10]], count=len(refused))
    return published


def _publish_alone(points: Sequence[PricePoint], *, now: datetime) -> tuple[int, list[UUID]]:
    """Publish what was refused with others one by one; return how many were taken, and which were not."""
    alone = [publisher().publish([point], polls=_polls_of([point]), now=now) for point in points]
    return sum(each.confirmed for each in alone), [point_id for each in alone for point_id in each.refused]


def republish_missing() -> int:
    """Put points that were published but have no average back into the outbox; return how many.

    For a Kafka that lost its log. The sweep then sends them; a point that was merely not consumed yet
    arrives twice, which the consumer bears.
    """
    averages = SymbolAverage.objects.filter(event_id=OuterRef("id"))
    lost = PricePoint.objects.filter(~Exists(averages), published_at__isnull=False)
    ids = PricePoint.objects.order_by("id").values_list("id", flat=True)
    count, since = 0, UUID(int=0)
    # A day at a time: one statement for all would hold all partitions, and do nothing if it was cut off.
    while first := ids.filter(id__gte=since).first():
        since = UUID(int=first.int + _IDS_OF_A_DAY)
        count += lost.filter(id__gte=first, id__lt=since).update(published_at=None)
    return count


def _pending_points(after: UUID | None, *, now: datetime) -> list[PricePoint]:
    # By their ids, which are of PostgreSQL's clock. Those of a time to come (it was ahead, and is set right)
    # wait for it: Kafka, or the consumer, would refuse them.
    old = first_id_at(now - timedelta(seconds=settings.OUTBOX_SWEEP_AFTER_S))
    pending = PricePoint.objects.filter(published_at__isnull=True, id__lt=old)
    if after is not None:
        pending = pending.filter(id__gt=after)
    return list(pending.order_by("id")[:SWEEP_BATCH])


def _polls_of(points: Sequence[PricePoint]) -> dict[UUID, UUID | None]:
    raw_ids = {point.raw for point in points}
    return dict(RawMarketData.objects.filter(id__in=raw_ids).values_list("id", "poll"))
