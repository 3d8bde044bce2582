"""`manage.py consume_prices` as processes on a topic, and how long they need for all of it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from confluent_kafka import TopicPartition
from django.conf import settings

from consumers.averages.connection import connect
from prices.publishing.kafka_clients import make_consumer

TIMEOUT_S = 600
POLL_S = 0.02
# Of each partition: one of them may be a duplicate, whose row is there before.
LAST_MESSAGES = 3
_STORED = "SELECT count(*) FROM symbol_averages WHERE event_id = ANY(%s)"


@dataclass(frozen=True)
class Consumed:
    """Events that ended up as rows, and what that took: CPU seconds and peak memory of all its processes."""

    events: int
    seconds: float
    cpu_s: float | None
    peak_mb: float | None

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds


class ConsumerProcess:
    """One process of a group; it writes its log into a file in the folder."""

    def __init__(self, folder: Path, *, topic: str, group: str) -> None:
        name = uuid.uuid4().hex
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "manage.py", "consume_prices"],
                cwd=settings.BASE_DIR,
                env=os.environ
                | {"KAFKA_TOPIC": topic, "KAFKA_CONSUMER_GROUP": group, "HEARTBEAT_DIR": str(folder / name)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def has_partitions(self) -> bool:
        """Return whether it has joined the group; SystemExit with its log where it has ended."""
        if self._process.poll() is not None:
            raise SystemExit(f"the consumer ended:\n{self._log.read_text()}")
        return "partitions.assigned" in self._log.read_text()

    def stop(self) -> tuple[float, float]:
        """End it; return its CPU seconds and its peak memory in MB."""
        peak_mb = _peak_mb(self._process.pid)
        self._process.send_signal(signal.SIGTERM)
        _pid, _status, used = os.wait4(self._process.pid, 0)
        self._process.returncode = 0
        return used.ru_utime + used.ru_stime, peak_mb


def _peak_mb(pid: int) -> float:
    # Not getrusage's: that one counts the memory of this process, which the other one began as.
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:  # it has ended
        return 0.0
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def consume(topic: str, *, messages: int, processes: int) -> Consumed:
    """Let a new group consume all `messages` that the topic holds.

    Measured from the first assignment of partitions until the rows of each partition's last messages are
    committed: what comes before them in a partition is stored before.
    """
    group = f"bench-{uuid.uuid4().hex[:8]}"
    last_ids = _last_ids(topic)
    with tempfile.TemporaryDirectory() as folder, connect() as watching:
        running = [ConsumerProcess(Path(folder), topic=topic, group=group) for _ in range(processes)]

        def all_stored() -> bool:
            for process in running:
                process.has_partitions()
            (count,) = watching.execute(_STORED, [last_ids]).fetchone()  # type: ignore[misc]  # has a row
            return bool(count == len(last_ids))

        try:
            _wait_until(lambda: any(process.has_partitions() for process in running), pause_s=0.005)
            started = time.perf_counter()
            _wait_until(all_stored, pause_s=POLL_S)
            seconds = time.perf_counter() - started
        finally:
            used = [process.stop() for process in running]
    cpu_s, peak_mb = (sum(values) for values in zip(*used, strict=True))
    return Consumed(events=messages, seconds=seconds, cpu_s=cpu_s, peak_mb=peak_mb)


def _last_ids(topic: str) -> list[UUID]:
    """Return the ids of each partition's last events."""
    reader = make_consumer({"group.id": "bench"})
    try:
        starts, count = [], 0
        for number in reader.list_topics(topic, timeout=10).topics[topic].partitions:
            oldest, end = reader.get_watermark_offsets(TopicPartition(topic, number), timeout=10)
            starts.append(TopicPartition(topic, number, max(end - LAST_MESSAGES, oldest)))
            count += min(LAST_MESSAGES, end - oldest)
        reader.assign(starts)
        values = [message.value() for message in reader.consume(count, timeout=30)]
    finally:
        reader.close()
    return list({UUID(json.loads(value or b"")["event_id"]) for value in values})


def _wait_until(condition: Callable[[], bool], *, pause_s: float) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"not done after {TIMEOUT_S} s")
        time.sleep(pause_s)
