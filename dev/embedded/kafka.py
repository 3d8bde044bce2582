"""Apache Kafka as one KRaft node on a loopback port, from jars that Maven fetched."""

import base64
import logging
import shutil
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from dev.embedded.java import KafkaProgram, KafkaUnavailableError
from dev.embedded.part import Part, PartError
from dev.embedded.ports import HOST, kept_port
from dev.guardian import Guardian

JAVA_OPTIONS = [
    # Ready in 2 s with 230 MB; a server for one user needs neither the big collectors nor the last optimiser.
    *("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx512m"),
    # Keeps the JVM from leaving a file in /tmp when it is killed.
    "-XX:-UsePerfData",
    *("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true"),
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSX",
]
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
    # After a kill the node must wait until its old session ends before it may register again: 9 s by default.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # 128 MB by default, taken at once.
    "log.cleaner.dedupe.buffer.size": "8388608",
}


class ApacheKafka(Part):
    """A broker that is its own controller. The first start fetches its jars.

    `start` raises KafkaUnavailableError where they cannot be fetched.
    """

    name = "Apache Kafka"
    start_timeout_s = 120
    _port = 0
    _controller_port = 0

    def __init__(self, folder: Path, *, logs: Path, guardian: Guardian, program: KafkaProgram) -> None:
        super().__init__(folder, logs=logs, guardian=guardian)
        self._jars = program.jars
        self._fetch_command = program.fetch
        self._java: list[str | Path] = [program.java, *JAVA_OPTIONS, "-cp", f"{program.jars}/*"]
        self._config = folder / "server.properties"
        self._data = folder / "data"

    @property
    def address(self) -> str:
        """What clients call bootstrap servers."""
        return f"{HOST}:{self._port}"

    def _prepare(self) -> None:
        if self._fetch_command and not self._jars.exists():
            self._fetch([*self._fetch_command, "dependency:copy-dependencies"])
        self.version = next(self._jars.glob("kafka_2.13-*.jar")).stem.partition("-")[2]
        self._port = kept_port(self.folder / "port")
        self._controller_port = kept_port(self.folder / "controller-port")
        self._config.write_text("".join(f"{name}={value}\n" for name, value in self._settings().items()))
        if not (self._data / "meta.properties").exists():
            self._format()

    def _fetch(self, command: Sequence[str]) -> None:
        self._jars.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=self._jars.parent))
        try:
            self._run_step([*command, f"-DoutputDirectory={draft}"])
            # Another start may have been faster; its jars are the same.
            if not self._jars.exists():
                draft.replace(self._jars)
        except PartError as error:
            raise KafkaUnavailableError(f"Maven could not fetch it; {self.log} says why") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _format(self) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        self._run_step(
            [
                *self._java,
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
            # Java reads a backslash as the start of an escape.
            "log.dirs": str(self._data).replace("\\", "\\\\"),
        }

    def _command(self) -> Sequence[str | Path]:
        return [*self._java, "kafka.Kafka", self._config]

    def _is_ready(self) -> bool:
        return answers(self.address)


def answers(address: str) -> bool:
    """Tell whether a Kafka broker answers at this address within a second."""
    silent = logging.getLogger("dev.embedded.kafka.probe")
    silent.propagate = False
    silent.addHandler(logging.NullHandler())
    client = AdminClient({"bootstrap.servers": address}, logger=silent)
    try:
        return bool(client.list_topics(timeout=1).brokers)
    except KafkaException:
        return False
