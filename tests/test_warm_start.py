"""A process that is started with its libraries imported is as any other."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.waiting import wait_until
from tests.warm_start import WarmProcess


def start(command: str, folder: Path, **changes: str) -> WarmProcess:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return WarmProcess(command, environment=os.environ | changes | {"PATH": path}, output=folder / "output")


def test_process_has_its_environment_output_and_exit_code(tmp_path: Path) -> None:
    process = start("python manage.py check", tmp_path, SECRET_KEY="")
    assert process.wait(60) == 1
    assert process.poll() == 1
    assert "SECRET_KEY is not set" in (tmp_path / "output").read_text()


def test_process_leads_a_session_and_heeds_signals(tmp_path: Path) -> None:
    command = "celery --quiet --app marketdata worker --hostname warm@%h --pool threads --queues none"
    process = start(command, tmp_path, HEARTBEAT_DIR=str(tmp_path))
    wait_until((tmp_path / "warm.heartbeat").exists, what="it runs")
    assert process.poll() is None
    assert os.getsid(process.pid) == process.pid
    process.terminate()
    assert process.wait(60) == 0


def test_killed_process_tells_the_signal(tmp_path: Path) -> None:
    process = start("python manage.py shell -c input()", tmp_path)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
