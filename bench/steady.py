"""How long an event takes to its row at a steady rate."""

import statistics
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from uuid import UUID

from confluent_kafka import Producer
from django.conf import settings

from bench.events import Event, fill_topic, make_events, send
from bench.processes import ConsumerProcess
from consumers.averages.connection import connect

TICK_S = 0.003
WARM_UP_S = 3


@dataclass(frozen=True)
class Latency:
    """From the hand-over to the producer to the moment at which another connection sees the row."""

    rate: int
    events: int
    p50_ms: float
    p99_ms: float
    most_ms: float


def measure_latency(*, rate: int, seconds: int, symbols: int) -> Latency:
    """Send `rate` events a second, and look each few milliseconds which rows are there."""
    topic = group = f"bench-steady-{uuid.uuid4().hex[:8]}"
    count = rate * (seconds + WARM_UP_S)
    events = make_events(count, symbols=symbols, end=datetime.now(UTC))
    fill_topic(topic, iter(()))
    producer = Producer(
        {"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS, "acks": "all", "log_level": 0}
    )
    with tempfile.TemporaryDirectory() as folder:
        consumer = ConsumerProcess(Path(folder), topic=topic, group=group)
        try:
            while not consumer.has_partitions():
                time.sleep(TICK_S)
            waits = _send_and_watch(producer, topic, events, count=count, rate=rate)
            producer.flush()
        finally:
            consumer.stop()
    waits = waits[rate * WARM_UP_S :]
    cuts = statistics.quantiles(waits, n=100)
    return Latency(rate, len(waits), cuts[49] * 1000, cuts[98] * 1000, max(waits) * 1000)


_NEW_ROWS = "SELECT event_id FROM symbol_averages WHERE event_id > %s ORDER BY event_id"


def _send_and_watch(
    producer: Producer, topic: str, events: Iterator[Event], *, count: int, rate: int
) -> list[float]:
    """Return the seconds from send to row of each event, in the order in which they were sent."""
    sent: dict[UUID, float] = {}
    seen: dict[UUID, float] = {}
    # All rows up to here have been seen.
    complete = UUID(int=0)
    waiting: deque[UUID] = deque()
    started = time.perf_counter()
    with connect() as connection:
        while len(seen) < count:
            due = min(int((time.perf_counter() - started) * rate) + 1, count) - len(sent)
            for event in islice(events, due):
                sent[event.event_id] = time.perf_counter()
                waiting.append(event.event_id)
                send(producer, topic, event)
            rows = connection.execute(_NEW_ROWS, [complete]).fetchall()
            now = time.perf_counter()
            for (event_id,) in rows:
                seen.setdefault(event_id, now)
            while waiting and waiting[0] in seen:
                complete = waiting.popleft()
            time.sleep(TICK_S)
    return [seen[event_id] - moment for event_id, moment in sent.items()]
