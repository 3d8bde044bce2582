"""The set of embedded parts: which are needed, start them together, stop them together."""

import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from dev.embedded.java import OLDEST_JAVA, KafkaUnavailableError, find_kafka
from dev.embedded.kafka import ApacheKafka
from dev.embedded.memory_kafka import MemoryKafka
from dev.embedded.part import Part, PartError
from dev.embedded.postgres import PostgreSQL
from dev.embedded.valkey import Valkey
from dev.guardian import Guardian

# The settings that lead to a part; one that is given is not embedded.
DATABASE, REDIS, KAFKA = "DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS"
SETTINGS = (DATABASE, REDIS, KAFKA)
KAFKA_ADVICE = (
    f"Install Java {OLDEST_JAVA} or newer and Maven (Debian: apt install default-jre-headless maven), "
    f"or give the address of a Kafka in {KAFKA}."
)
POLL_S = 0.1


@dataclass(frozen=True)
class Place:
    """Where the parts live. `libs` may be shared by several places: it holds Kafka's jars only."""

    data: Path
    libs: Path

    @property
    def logs(self) -> Path:
        """The folder of the parts' logs."""
        return self.data / "logs"


@dataclass(frozen=True)
class Wishes:
    """What is asked of the parts: for tests or to keep data, which Kafka, which topic."""

    durable: bool
    apache_kafka_only: bool
    topic: str


class Embedded:
    """The parts that are not given by an address. `say` gets sentences for people, from any thread."""

    def __init__(
        self,
        place: Place,
        wishes: Wishes,
        *,
        given: Collection[str],
        guardian: Guardian,
        say: Callable[[str], None],
    ) -> None:
        self._place = place
        self._wishes = wishes
        self._guardian = guardian
        self._say = say
        self._lock = threading.Lock()
        self._stopping = False
        make = {DATABASE: self._make_postgres, REDIS: self._make_valkey, KAFKA: self._make_kafka}
        self.parts: dict[str, Part] = {name: make[name]() for name in SETTINGS if name not in given}

    def start(self, *, check: Callable[[], None] = lambda: None) -> None:
        """Start all at once; PartError of the first that fails. `check` runs meanwhile and may raise."""
        with ThreadPoolExecutor(max_workers=len(SETTINGS)) as pool:
            try:
                starts = [pool.submit(self._start, name) for name in self.parts]
                _finish(starts, check=check)
            except BaseException:
                # Without it the pool would wait for the others to get ready.
                self.stop()
                raise

    def stop(self) -> None:
        """Stop all at once, for good."""
        with self._lock:
            self._stopping = True
            parts = list(self.parts.values())
        with ThreadPoolExecutor(max_workers=len(SETTINGS)) as pool:
            list(pool.map(lambda part: part.close(), parts))

    def addresses(self) -> dict[str, str]:
        """Give each setting's value."""
        return {name: part.address for name, part in self.parts.items()}

    def failure(self) -> PartError | None:
        """Tell of a part that ended by itself."""
        return next((error for part in self.parts.values() if (error := part.failure())), None)

    def _start(self, name: str) -> None:
        try:
            self.parts[name].start()
        except KafkaUnavailableError as error:
            with self._lock:
                if self._stopping:
                    raise
                self.parts[name] = self._make_memory_kafka(str(error))
            self.parts[name].start()

    def _make_postgres(self) -> Part:
        folder = self._place.data / "postgres"
        return PostgreSQL(
            folder, logs=self._place.logs, guardian=self._guardian, durable=self._wishes.durable
        )

    def _make_valkey(self) -> Part:
        return Valkey(self._place.data / "valkey", logs=self._place.logs, guardian=self._guardian)

    def _make_kafka(self) -> Part:
        try:
            program = find_kafka(self._place.libs)
        except KafkaUnavailableError as error:
            return self._make_memory_kafka(str(error))
        if program.fetch:
            self._say("Fetching Apache Kafka with Maven (44 MB, once).")
        return ApacheKafka(
            self._place.data / "kafka", logs=self._place.logs, guardian=self._guardian, program=program
        )

    def _make_memory_kafka(self, reason: str) -> Part:
        if self._wishes.apache_kafka_only:
            raise PartError(
                ApacheKafka.name, f"REQUIRE_APACHE_KAFKA is set, but {reason}.", advice=KAFKA_ADVICE
            )
        self._say(
            f"Apache Kafka cannot run here: {reason}. In its place runs librdkafka's in-memory broker: "
            f"good for trying out, it forgets at a restart. {KAFKA_ADVICE}"
        )
        return MemoryKafka(
            self._place.data / "memory-kafka",
            logs=self._place.logs,
            guardian=self._guardian,
            topic=self._wishes.topic,
        )


def _finish(starts: list[Future[None]], *, check: Callable[[], None]) -> None:
    pending = set(starts)
    while pending:
        done, pending = wait(pending, timeout=POLL_S)
        # First, since a Ctrl-C may have reached a part before it left the terminal's group.
        check()
        for start in done:
            start.result()
