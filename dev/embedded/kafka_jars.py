"""The jars of Apache Kafka, as kafka.lock names them. `make lock-kafka` writes that file."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LOCK = Path(__file__).with_name("kafka.lock")
_LINE = re.compile(r"([\w.-]+):([\w.-]+):([\w.-]+) sha256:([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True)
class Jar:
    """One file, by its name in a Maven repository and the SHA-256 of its bytes."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        """Return the name that Maven gives the file."""
        return f"{self.artifact}-{self.version}.jar"

    def __str__(self) -> str:
        """Return its line in the lock."""
        return f"{self.group}:{self.artifact}:{self.version} sha256:{self.sha256}"


def read_lock(lock: Path = LOCK) -> list[Jar]:
    """Return the jars that the lock names, in the order of Java's class path."""
    return [
        Jar(*found.groups()) for line in lock.read_text().splitlines() if (found := _LINE.fullmatch(line))
    ]


def kafka_version(jars: Sequence[Jar]) -> str:
    """Return the version of Apache Kafka among the jars."""
    return next(jar.version for jar in jars if jar.group == "org.apache.kafka")


def missing_jars(jars: Sequence[Jar], folder: Path) -> list[Jar]:
    """Return those that the folder lacks, or has with other bytes than the lock says (44 MB in 60 ms)."""
    return [jar for jar in jars if not is_locked(jar, folder / jar.file_name)]


def is_locked(jar: Jar, path: Path) -> bool:
    """Return whether the file has the very bytes that the lock names."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == jar.sha256
    except FileNotFoundError:
        return False
