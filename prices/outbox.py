"""The outbox: stored points go to Kafka, and only what Kafka confirmed counts as published.

A point may be sent more than once, never zero times: whatever a process could not publish (it died,
Kafka was away) stays without `published_at`, and the sweep sends it.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from django.conf import settings
from django.db.models import Exists, OuterRef
from django.db.models.functions import Now
from django.utils import timezone

from prices.events import encode_event
from prices.models import PricePoint, RawMarketData, SymbolAverage
from prices.patience import patiently
from prices.single import only_one

log = structlog.get_logger(__name__)
_silent = logging.getLogger("librdkafka.outbox")
_silent.disabled = True

DELIVERY_TIMEOUT_S = 2.0
PAUSE_AFTER_FAILURE_S = 3.0
SWEEP_BATCH = 1000
SWEEP_LOCK = "outbox sweep"


@dataclass(frozen=True, slots=True)
class Publication:
    """What became of a call: how many points Kafka confirmed, of how many."""

    confirmed: int
    attempted: int


class Publisher:
    """A process's own Kafka producer. One must not cross a fork: use `publisher()`."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._paused_until = 0.0
        self._kafka_away = False
        self._producer = Producer(
            {
                "bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 2,
                # librdkafka gives up when the caller does: nothing is left to be sent behind its back.
                "message.timeout.ms": int(DELIVERY_TIMEOUT_S * 1000),
            },
            # Its own words come once a second while Kafka is away; what matters is logged below, once.
            logger=_silent,
        )

    def publish(self, points: Sequence[PricePoint], *, polls: Mapping[UUID, UUID | None]) -> Publication:
        """Send the points and wait up to 2 s; mark those that Kafka confirmed.

        `polls` gives the poll run of each point's raw answer. For a few seconds after a failure
        nothing is tried: the sweep comes back to what stayed behind.
        """
        if not self._may_send():
            return Publication(0, len(points))
        confirmed = self._send(points, polls)
        self._note_outcome(failed=len(confirmed) < len(points))
        patiently(lambda: mark_published(confirmed))
        return Publication(len(confirmed), len(points))

    def _may_send(self) -> bool:
        with self._lock:
            now = time.monotonic()
            if now < self._paused_until:
                return False
            if self._kafka_away:
                # One caller tries whether Kafka is back; the others have polls to do.
                self._paused_until = now + PAUSE_AFTER_FAILURE_S
            return True

    def _note_outcome(self, *, failed: bool) -> None:
        self._paused_until = time.monotonic() + PAUSE_AFTER_FAILURE_S if failed else 0.0
        if failed and not self._kafka_away:
            log.warning("outbox.kafka_away", retry_s=PAUSE_AFTER_FAILURE_S)
        elif self._kafka_away and not failed:
            log.info("outbox.kafka_back")
        self._kafka_away = failed

    def _send(self, points: Sequence[PricePoint], polls: Mapping[UUID, UUID | None]) -> list[UUID]:
        deliveries = _Deliveries(len(points))
        for point in points:
            message = encode_event(point, poll=polls.get(point.raw))
            try:
                self._producer.produce(
                    settings.KAFKA_TOPIC,
                    key=message.key,
                    value=message.value,
                    headers=message.headers,
                    on_delivery=deliveries.report_for(point.id),
                )
            except (BufferError, KafkaException):
                deliveries.failed()
        deadline = time.monotonic() + DELIVERY_TIMEOUT_S
        while not deliveries.complete and time.monotonic() < deadline:
            self._producer.poll(0.01)
        return deliveries.confirmed


class _Deliveries:
    """The delivery reports of one call; any thread that polls the producer may bring them."""

    def __init__(self, expected: int) -> None:
        self.confirmed: list[UUID] = []
        self._open = expected
        self._lock = threading.Lock()

    @property
    def complete(self) -> bool:
        return self._open == 0

    def failed(self) -> None:
        with self._lock:
            self._open -= 1

    def report_for(self, point_id: UUID) -> Callable[[KafkaError | None, Message], None]:
        def report(error: KafkaError | None, _message: Message) -> None:
            with self._lock:
                self._open -= 1
                if error is None:
                    self.confirmed.append(point_id)

        return report


_publisher: Publisher | None = None
_publisher_lock = threading.Lock()


def publisher() -> Publisher:
    """Give this process's publisher, made at its first use and made anew after a fork."""
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
    """Publish what is pending and older than OUTBOX_SWEEP_AFTER_S, in id order; give how much was.

    One sweep runs at a time, over all processes; a second one ends at once. It ends early where
    Kafka does not confirm.
    """
    published = 0
    # A session lock: no transaction is held open while Kafka is waited for.
    with only_one(SWEEP_LOCK) as mine:
        while mine:
            points = _pending_points()
            if not points:
                break
            publication = publisher().publish(points, polls=_polls_of(points))
            published += publication.confirmed
            if publication.confirmed < publication.attempted:
                break
    return published


def republish_missing() -> int:
    """Put points that were published but have no average back into the outbox; give how many.

    For a Kafka that lost its log (the in-memory broker forgets at a restart). The sweep then sends
    them; a point that was merely not consumed yet arrives twice, which the consumer bears.
    """
    averages = SymbolAverage.objects.filter(event_id=OuterRef("id"))
    lost = PricePoint.objects.filter(~Exists(averages), published_at__isnull=False)
    return lost.update(published_at=None)


def _pending_points() -> list[PricePoint]:
    old = timezone.now() - timedelta(seconds=settings.OUTBOX_SWEEP_AFTER_S)
    pending = PricePoint.objects.filter(published_at__isnull=True, received_at__lt=old)
    return list(pending.order_by("id")[:SWEEP_BATCH])


def _polls_of(points: Sequence[PricePoint]) -> dict[UUID, UUID | None]:
    raw_ids = {point.raw for point in points}
    return dict(RawMarketData.objects.filter(id__in=raw_ids).values_list("id", "poll"))
