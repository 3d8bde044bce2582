"""`manage.py simulate_provider` as a real process, and what the README says of it."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from django.conf import settings as django_settings
from pytest_django import Settings

from providers.base import ErrorKind
from providers.simulator.faults import Faults
from providers.simulator.simulator import Simulator
from tests.providers.answers import kind_of, quote_of
from tests.simulator import KEY, ask
from tests.waiting import wait_until

ROOT = Path(django_settings.BASE_DIR)
README = (ROOT / "README.md").read_text()
# No part of the service is there, and no setting: the simulator needs none.
ALONE = {"SECRET_KEY": "", "DATABASE_URL": "", "REDIS_URL": "", "KAFKA_BOOTSTRAP_SERVERS": ""}


class Running:
    """The command as a process; its output goes to a file in the folder."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._output = folder / "output"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "simulate_provider", *options],
                cwd=ROOT,
                env=os.environ | ALONE,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    def url(self) -> str:
        """Return its address once it serves."""
        wait_until(lambda: "/_requests" in self.output or self.process.poll() is not None)
        found = re.search(r"FINNHUB_BASE_URL=(\S+)", self.output)
        assert found, self.output
        return found[1]


@contextmanager
def running(folder: Path, *options: str) -> Iterator[Running]:
    started = Running(folder, *options)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.wait()


def shell(command: str) -> str:
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_command_serves_with_its_faults_until_a_signal(
    tmp_path: Path, settings: Settings, ending: signal.Signals
) -> None:
    options = "--latency-s 0.01 --error-rate 1 --error 503 --rate-limit 9/1m --stale-s 60 --not-entitled"
    settings.FINNHUB_API_KEY = KEY
    with running(tmp_path, "--port", "0", *options.split()) as command:
        settings.FINNHUB_BASE_URL = url = command.url()
        expected = Faults(0.01, 0, 1, "503", "9/1m", not_entitled=True, stale_s=60).as_dict()
        assert requests.get(f"{url}/_faults/finnhub", timeout=5).json() == expected
        assert kind_of(ask("finnhub")) == ErrorKind.UPSTREAM_ERROR
        requests.patch(f"{url}/_faults", json={"error": "hang", "not_entitled": False}, timeout=5)
        settings.PROVIDER_TIMEOUT_S = 0.3
        ask("finnhub")
        command.process.send_signal(ending)
        assert command.process.wait(10) == 0
        assert command.output.endswith("Stopped.\n")
        assert KEY not in command.output


def test_lines_that_the_command_prints_can_be_run(tmp_path: Path) -> None:
    with running(tmp_path, "--port", "0") as command:
        command.url()
        calls = [line.strip() for line in command.output.splitlines() if line.startswith("  curl ")]
        assert len(calls) == 4
        answers = [shell(f"{call} --silent --show-error --fail") for call in calls]
        assert '"error": "hang"' in answers[0]
        assert answers[1] == answers[0]
        assert '"error_rate": 0,' in answers[2]
        assert '"requests": []' in answers[3]


@pytest.mark.parametrize(
    ("options", "exit_code", "told"),
    [
        ("--port {taken}", 1, "127.0.0.1:{taken} cannot be served on: Address already in use"),
        ("--port http", 2, "--port must be a whole number from 0 to 65535, not 'http'"),
        ("--port 0 --error-rate two", 2, 'error_rate must be a number from 0 to 1, not "two"'),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(
    tmp_path: Path, simulator: Simulator, options: str, exit_code: int, told: str
) -> None:
    taken = simulator.url.rpartition(":")[2]
    with running(tmp_path, *options.format(taken=taken).split()) as command:
        assert command.process.wait(30) == exit_code
        assert command.output == f"CommandError: {told.format(taken=taken)}\n"


def test_readme_tells_how_to_try_it(tmp_path: Path, settings: Settings) -> None:
    section = README.partition("## Try it with a misbehaving provider\n")[2].partition("\n## ")[0]
    start, faults = re.findall(r"```sh\n(.+?)\n```", section, re.DOTALL)
    variables = dict(word.split("=") for word in start.split() if "=" in word)
    assert "manage.py simulate_provider" in start
    with running(tmp_path, "--port", "0") as command:
        url = command.url()
        for name, value in variables.items():
            setattr(settings, name, value.replace("http://127.0.0.1:8100", url))
        quote_of(ask("finnhub", "AAPL"))
        wrong, told, ended = (
            shell(line.replace("http://127.0.0.1:8100", f"--silent --fail {url}"))
            for line in faults.splitlines()
        )
    assert '"error_rate": 0.5' in wrong
    assert '"requests": 1' in told
    assert '"error_rate": 0,' in ended
    assert [name for name in Faults().as_dict() if f"`{name}`" not in section] == []
