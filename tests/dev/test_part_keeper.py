"""What ended by itself is started again, and logs stay small."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dev.embedded.valkey import Valkey
from dev.guardian import Guardian
from dev.part_keeper import MOST_LOG_BYTES, PartKeeper, limit_log
from dev.stopped import note_stopped
from prices.maintenance.stopped_processes import stopped_processes
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def own_heartbeats(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEARTBEAT_DIR", str(tmp_path / "heartbeats"))


@pytest.fixture
def valkey(tmp_path: Path, guardian: Guardian) -> Valkey:
    valkey = Valkey(tmp_path / "valkey", logs=tmp_path / "logs", guardian=guardian)
    valkey.start()
    return valkey


def said(keeper: PartKeeper, text: str) -> str:
    """Look until the keeper says something with `text`; return it."""
    return wait_until(lambda: next((line for line in keeper.look() if text in line), ""), what=text)


def test_killed_part_runs_again_at_its_address(valkey: Valkey) -> None:
    keeper = PartKeeper([valkey])
    address, pid = valkey.address, valkey.pid
    assert keeper.look() == []

    os.kill(pid, signal.SIGKILL)
    assert "Valkey is started again in 0.5 s." in said(keeper, "killed by SIGKILL")
    said(keeper, "Valkey runs again.")
    assert valkey.address == address
    assert valkey.pid != pid
    valkey.stop()


def test_part_that_cannot_start_is_tried_each_minute(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dev.restarts.FIRST_DELAY_S", 0.01)
    monkeypatch.setattr("dev.part_keeper.NEXT_TRY_S", 0.1)
    keeper = PartKeeper([valkey])
    with monkeypatch.context() as no_server:
        no_server.setattr("dev.embedded.valkey._server", lambda: Path("/bin/false"))
        os.kill(valkey.pid, signal.SIGKILL)
        assert "Valkey: it ended while starting (exit code 1)" in said(keeper, "is down; it is tried each")
        assert "ended 5 times within a minute" in stopped_processes()["Valkey"]

    said(keeper, "Valkey runs again.")
    assert stopped_processes() == {}
    valkey.stop()


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder on a disk without room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    (disk / "valkey.log").write_bytes(b"x" * (MOST_LOG_BYTES + 1))
    with (disk / "filling").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_full_disk_ends_no_runner(full_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTBEAT_DIR", str(full_disk / "heartbeats"))
    limit_log(full_disk / "valkey.log")
    assert (full_disk / "valkey.log").stat().st_size == MOST_LOG_BYTES + 1
    note_stopped("Valkey", "x" * 10_000)
    assert stopped_processes() == {}


def test_long_log_is_moved_aside(tmp_path: Path) -> None:
    log = tmp_path / "kafka.log"
    with log.open("ab", buffering=0) as server:
        server.write(b"x" * MOST_LOG_BYTES)
        limit_log(log)
        assert not log.with_suffix(".log.1").exists()
        server.write(b"y")
        limit_log(log)
        assert log.with_suffix(".log.1").stat().st_size == MOST_LOG_BYTES + 1
        server.write(b"z")
    assert log.read_bytes() == b"z"
