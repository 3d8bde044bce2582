"""A process's Kafka producer: points go out, and those that Kafka confirmed count as published."""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from django.conf import settings
from django.db.models.functions import Now

from prices.database.retry import retry_database
from prices.database.uuid7 import epoch_ms, made_at_ms
from prices.models import PricePoint
from prices.outage_log import Outage
from prices.publishing.events import encode_event
from prices.publishing.kafka_clients import LastingClient, delivery_error, make_producer
from prices.publishing.kafka_clock import KafkaClock

DELIVERY_TIMEOUT_S = 2.0
PAUSE_AFTER_FAILURE_S = 3.0

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


class Publisher:
    """A process's own Kafka producer. One must not cross a fork: use `publisher()`."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._paused_until = 0.0
        self._outage = Outage(began="outbox.kafka_away", ended="outbox.kafka_back")
        self._kafkas_clock = KafkaClock()
        self._producers = LastingClient(_make_producer)

    def publish(
        self,
        points: Sequence[PricePoint],
        *,
        polls: Mapping[UUID, UUID | None],
        now: datetime | None = None,
    ) -> Publication:
        """Send the points and wait up to 2 s; mark those that Kafka confirmed, and return what became of all.

        Where Kafka's clock was behind, one point alone goes first, and the others up to 2 s after it.
        `polls` gives the poll run of each point's raw answer, and `now` the time by PostgreSQL's clock, where
        they were not made just now. For a few seconds after a failure nothing is tried: the sweep comes back
        to what stayed behind, and to what lies too far ahead of Kafka's clock.
        """
        if not self._may_send():
            return Publication(0, len(points))
        clock = self._kafkas_clock
        in_time = clock.in_time(points)
        sent = [self._send(in_time, polls, now)]
        left = _without(points, in_time)
        if left and sent[0].is_answered and clock.is_known and (in_time := clock.in_time(left)):
            # One alone was to tell how late it is there, and it is late enough.
            sent.append(self._send(in_time, polls, now))
            left = _without(left, in_time)
        confirmed = [point_id for each in sent for point_id in each.confirmed]
        refused = tuple(point_id for each in sent for point_id in each.refused)
        early = len(left) + sum(each.early for each in sent)
        publication = Publication(len(confirmed), len(points), refused, early)
        reason = next((each.reason for each in sent if not each.is_answered), "")
        self._note_outcome(is_answered=publication.is_answered, reason=reason)
        if clock.is_known:
            # Points of long ago are not early, however far it is behind.
            clock.log_change(is_behind=early > 0 or (now is not None and clock.is_behind(epoch_ms(now))))
        retry_database(lambda: mark_published(confirmed))
        return publication

    def _may_send(self) -> bool:
        with self._lock:
            now = time.monotonic()
            if now < self._paused_until:
                return False
            if self._outage.is_under_way:
                # One caller tries whether Kafka is back; the others have polls to do.
                self._paused_until = now + PAUSE_AFTER_FAILURE_S
            return True

    def _note_outcome(self, *, is_answered: bool, reason: str) -> None:
        with self._lock:
            if is_answered:
                self._paused_until = 0.0
                self._outage.end()
            else:
                self._paused_until = time.monotonic() + PAUSE_AFTER_FAILURE_S
                self._outage.begin(reason)

    def _send(
        self, points: Sequence[PricePoint], polls: Mapping[UUID, UUID | None], now: datetime | None
    ) -> "_Deliveries":
        deliveries = _Deliveries(len(points), self._kafkas_clock)
        now_ms = 0 if now is None else epoch_ms(now)
        asked_at = time.monotonic()
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
        self._producers.note(producer, asked_at=asked_at, is_answered=deliveries.is_answered)
        return deliveries


def _without(points: Sequence[PricePoint], others: Sequence[PricePoint]) -> list[PricePoint]:
    if len(others) == len(points):
        return []
    ids = {point.id for point in others}
    return [point for point in points if point.id not in ids]


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

    def __init__(self, expected: int, kafkas_clock: KafkaClock) -> None:
        self.confirmed: list[UUID] = []
        self.refused: list[UUID] = []
        # What Kafka took, and the consumer will refuse: it is sent again in its time.
        self.early = 0
        self._kafkas_clock = kafkas_clock
        # Why the last one failed that did.
        self.reason = "no answer"
        self._open = self._expected = expected
        self._lock = threading.Lock()

    @property
    def complete(self) -> bool:
        return self._open == 0

    @property
    def is_answered(self) -> bool:
        return len(self.confirmed) + len(self.refused) + self.early == self._expected

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
