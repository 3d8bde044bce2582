"""The set of embedded parts: which are needed, start them together, stop them together."""

from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from dev.embedded.kafka import ApacheKafka
from dev.embedded.part import Part
from dev.embedded.postgres import PostgreSQL
from dev.embedded.valkey import Valkey
from dev.guardian import ROOT, Guardian

# The settings that lead to a part; one that is given is not embedded.
DATABASE, REDIS, KAFKA = "DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS"
SETTINGS = (DATABASE, REDIS, KAFKA)
POLL_S = 0.1


@dataclass(frozen=True)
class Paths:
    """Where the parts live. `libs` holds Kafka's jars only, and may be shared by several places."""

    data: Path
    libs: Path = ROOT / ".data" / "kafka-libs"

    @property
    def logs(self) -> Path:
        """The folder of the parts' logs."""
        return self.data / "logs"


class Embedded:
    """The parts that are not given by an address.

    With `durable`, what PostgreSQL has confirmed outlives a power cut. `say` gets sentences for people,
    from any thread.
    """

    def __init__(
        self,
        paths: Paths,
        *,
        durable: bool,
        given: Collection[str],
        guardian: Guardian,
        say: Callable[[str], None],
    ) -> None:
        self._paths = paths
        self._durable = durable
        self._guardian = guardian
        self._say = say
        make = {DATABASE: self._make_postgres, REDIS: self._make_valkey, KAFKA: self._make_kafka}
        self.parts: dict[str, Part] = {name: make[name]() for name in SETTINGS if name not in given}

    def start(self, *, check: Callable[[], None] = lambda: None) -> None:
        """Start all at once; PartError of the first that fails. `check` runs meanwhile and may raise."""
        with ThreadPoolExecutor(max_workers=len(SETTINGS)) as pool:
            try:
                starts = [pool.submit(part.start) for part in self.parts.values()]
                _finish(starts, check=check)
            except BaseException:
                # Without it the pool would wait for the others to get ready.
                self.stop()
                raise

    def stop(self) -> None:
        """Stop all at once, for good."""
        with ThreadPoolExecutor(max_workers=len(SETTINGS)) as pool:
            list(pool.map(lambda part: part.close(), self.parts.values()))

    def addresses(self) -> dict[str, str]:
        """Return each setting's value."""
        return {name: part.address for name, part in self.parts.items()}

    def _make_postgres(self) -> Part:
        folder = self._paths.data / "postgres"
        return PostgreSQL(folder, logs=self._paths.logs, guardian=self._guardian, durable=self._durable)

    def _make_valkey(self) -> Part:
        return Valkey(self._paths.data / "valkey", logs=self._paths.logs, guardian=self._guardian)

    def _make_kafka(self) -> Part:
        return ApacheKafka(
            self._paths.data / "kafka",
            logs=self._paths.logs,
            guardian=self._guardian,
            libs=self._paths.libs,
            say=self._say,
        )


def _finish(starts: list[Future[None]], *, check: Callable[[], None]) -> None:
    pending = set(starts)
    while pending:
        done, pending = wait(pending, timeout=POLL_S)
        # First, since a Ctrl-C may have reached a part before it left the terminal's group.
        check()
        for start in done:
            start.result()
