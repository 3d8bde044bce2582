"""The broker inside librdkafka: in memory, for machines without Java. For trying out, never for a proof.

It forgets everything at a restart, and its topic has four partitions, whatever was asked for.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from confluent_kafka import libversion

from dev.embedded.part import Part
from dev.guardian import Guardian

BROKER = Path(__file__).with_name("memory_broker.py")


class MemoryKafka(Part):
    """A process that keeps the broker alive; it has another address after each start."""

    name = "In-memory Kafka"

    def __init__(self, folder: Path, *, logs: Path, guardian: Guardian, topic: str) -> None:
        super().__init__(folder, logs=logs, guardian=guardian)
        self.version = f"(librdkafka {libversion()[0]})"
        self._topic = topic
        self._address_file = folder / "address"

    @property
    def address(self) -> str:
        """What clients call bootstrap servers."""
        return self._address_file.read_text()

    def _prepare(self) -> None:
        self._address_file.unlink(missing_ok=True)

    def _command(self) -> Sequence[str | Path]:
        return [sys.executable, BROKER, self._address_file, self._topic]

    def _is_ready(self) -> bool:
        return self._address_file.exists()
