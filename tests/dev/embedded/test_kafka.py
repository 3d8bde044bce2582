"""Apache Kafka of a first start: what it says when its files cannot be fetched."""

import socket
from pathlib import Path

import pytest

from dev.embedded.kafka import ApacheKafka
from dev.embedded.part import PartError
from dev.embedded.parts import DATABASE, REDIS, Embedded, Paths
from dev.guardian import Guardian
from dev.stopping import StopRequest, StopRequested
from tests.dev.processes import processes_below


def use_mirror(port: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = folder / "jgo.conf"
    settings.write_text(f"[repositories]\ncentral = http://127.0.0.1:{port}\n")
    monkeypatch.setenv("JGO_CONFIG_FILE", str(settings))


def test_kafka_that_cannot_be_fetched_says_so(
    tmp_path: Path, guardian: Guardian, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_mirror(1, tmp_path, monkeypatch)
    said: list[str] = []
    kafka = ApacheKafka(
        tmp_path / "kafka", logs=tmp_path, guardian=guardian, libs=tmp_path / "libs", say=said.append
    )

    with pytest.raises(PartError) as caught:
        kafka.start()

    first, advice = str(caught.value).split("\n")
    assert first == "Apache Kafka: 127.0.0.1 cannot be reached (ConnectionError)."
    assert "HTTPS_PROXY" in advice
    assert said == [f"Fetching {kafka.title} (46 of its 46 files, once) ..."]


def test_kafka_start_called_off_ends_the_fetch(
    tmp_path: Path, guardian: Guardian, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = StopRequest()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        use_mirror(silent.getsockname()[1], tmp_path, monkeypatch)
        embedded = Embedded(
            Paths(tmp_path, libs=tmp_path / "libs"),
            durable=False,
            given={DATABASE, REDIS},
            guardian=guardian,
            say=lambda text: None,
        )

        def ask_during_the_fetch() -> None:
            silent.accept()[0].close()
            stop.ask()
            stop.check()

        with pytest.raises(StopRequested):
            embedded.start(check=ask_during_the_fetch)
    assert processes_below(tmp_path) == []
