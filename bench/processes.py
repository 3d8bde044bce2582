"""`manage.py consume_prices` as processes on a topic, and how long they need for all of it."""

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

from confluent_kafka import Consumer, TopicPartition
from django.conf import settings

TIMEOUT_S = 600
POLL_S = 0.05


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
        """Tell whether it has joined the group; SystemExit with its log where it has ended."""
        if self._process.poll() is not None:
            raise SystemExit(f"the consumer ended:\n{self._log.read_text()}")
        return "partitions.assigned" in self._log.read_text()

    def stop(self) -> tuple[float, float]:
        """End it; give its CPU seconds and its peak memory in MB."""
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
    """Let a new group consume all that the topic holds.

    Measured from the first assignment of partitions until the group has committed the last offset, which it
    does after the last row's commit.
    """
    group = f"bench-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory() as folder:
        running = [ConsumerProcess(Path(folder), topic=topic, group=group) for _ in range(processes)]
        try:
            _wait_until(lambda: any(process.has_partitions() for process in running), pause_s=0.005)
            started = time.perf_counter()
            _wait_for_commits(topic, group, messages=messages, running=running)
            seconds = time.perf_counter() - started
        finally:
            used = [process.stop() for process in running]
    cpu_s, peak_mb = (sum(values) for values in zip(*used, strict=True))
    return Consumed(events=messages, seconds=seconds, cpu_s=cpu_s, peak_mb=peak_mb)


def _wait_for_commits(topic: str, group: str, *, messages: int, running: list[ConsumerProcess]) -> None:
    observer = Consumer({"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS, "group.id": group})
    try:
        found = observer.list_topics(topic, timeout=10).topics[topic].partitions
        partitions = [TopicPartition(topic, number) for number in found]

        def all_committed() -> bool:
            for process in running:
                process.has_partitions()
            offsets = observer.committed(partitions, timeout=10)
            return sum(max(position.offset, 0) for position in offsets) >= messages

        _wait_until(all_committed, pause_s=POLL_S)
    finally:
        observer.close()


def _wait_until(condition: Callable[[], bool], *, pause_s: float) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"not done after {TIMEOUT_S} s")
        time.sleep(pause_s)
