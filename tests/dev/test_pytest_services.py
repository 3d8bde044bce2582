"""The parts of a test run start with it and never outlive it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from dev.embedded.parts import REDIS
from dev.guardian import ROOT
from dev.pytest_services import Services
from tests.dev.processes import processes_below
from tests.dev.runs import ELSEWHERE
from tests.waiting import wait_until

TEST = """
import os
from pathlib import Path

def test_address(services):
    assert services.valkey.address == os.environ["REDIS_URL"]
    Path("started").write_text(str(services.valkey.pid))
    {more}

def test_given_part_cannot_be_stopped(services):
    services.kafka.stop()
"""

# Neither worker gets both tests: each waits for the other.
TEST_OF_WORKERS = """
import os, time
from pathlib import Path
import pytest

@pytest.mark.parametrize("number", [1, 2])
def test_addresses(services, number):
    parts = (services.postgres, services.valkey, services.kafka)
    draft = Path("draft-" + os.environ["PYTEST_XDIST_WORKER"])
    draft.write_text(" ".join(part.address for part in parts))
    draft.rename(os.environ["PYTEST_XDIST_WORKER"])
    while len(list(Path().glob("gw*"))) < 2:
        time.sleep(0.05)
"""


@contextmanager
def heeding_sigint() -> Iterator[None]:
    """Let what is started heed SIGINT: a run in a shell's background ignores it, and so would that."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


def start_pytest(
    folder: Path, *words: str, more: str = "pass", test: str = TEST, **environment: str
) -> subprocess.Popen[str]:
    (folder / "test_it.py").write_text(test.format(more=more) if test is TEST else test)
    # What hangs tells where, in time for the output.
    (folder / "pytest.ini").write_text("[pytest]\nfaulthandler_timeout = 240\n")
    given = {name: address for name, address in ELSEWHERE.items() if name != REDIS}
    plugins = ["-p", "dev.pytest_services", "-p", "no:django"]
    with heeding_sigint():
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", "-v", "--color=no", *plugins, *words],
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "TMPDIR": str(folder),
                **given,
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def output_of(process: subprocess.Popen[str], *, timeout_s: float = 300) -> str:
    """Return what it printed, once it has ended; kill one that does not, and fail with its output."""
    try:
        return process.communicate(timeout=timeout_s)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"it has not ended within {timeout_s:g} s:\n{process.communicate()[0]}")


def test_plugin_gives_the_parts_and_ends_them(tmp_path: Path) -> None:
    process = start_pytest(tmp_path)
    output = output_of(process)
    assert process.returncode == 0, output
    assert "services: DATABASE_URL as given, Valkey 9" in output
    assert "1 passed, 1 skipped" in output
    assert not psutil.pid_exists(int((tmp_path / "started").read_text()))
    assert list(tmp_path.glob("marketdata-tests-*")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_plugin_interrupted_run_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    process = start_pytest(tmp_path, more="import time; time.sleep(600)")
    wait_until((tmp_path / "started").exists, what="the test runs")

    os.killpg(process.pid, number)
    try:
        process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        # Python drops an interrupt that falls into a callback, as of its garbage collector: ask once more.
        os.killpg(process.pid, number)
        output_of(process)

    wait_until(lambda: not processes_below(tmp_path), what="nothing left")
    wait_until(lambda: not list(tmp_path.glob("marketdata-tests-*")), what="no folder left")


def test_workers_have_parts_of_their_own(tmp_path: Path) -> None:
    nothing_given = dict.fromkeys(ELSEWHERE, "")
    process = start_pytest(tmp_path, "--numprocesses", "2", test=TEST_OF_WORKERS, **nothing_given)
    output = output_of(process, timeout_s=300)
    assert process.returncode == 0, output
    assert "services: each worker starts its own" in output
    parts = [set(file.read_text().split()) for file in tmp_path.glob("gw*")]
    assert [len(addresses) for addresses in parts] == [3, 3]
    assert not set.intersection(*parts)
    assert list(tmp_path.glob("marketdata-tests-*")) == []


def test_workers_refuse_parts_that_they_would_share(tmp_path: Path) -> None:
    process = start_pytest(tmp_path, "--numprocesses", "2")
    output = output_of(process, timeout_s=300)
    assert process.returncode
    assert "DATABASE_URL and KAFKA_BOOTSTRAP_SERVERS would be shared by workers" in output


def test_plugin_keeps_this_machine_from_proxies(tmp_path: Path) -> None:
    asks = "import requests, http.server, threading as t; s = http.server.HTTPServer(('127.0.0.1', 0), "
    asks += "http.server.SimpleHTTPRequestHandler); t.Thread(target=s.handle_request).start(); "
    asks += "assert requests.get(f'http://127.0.0.1:{s.server_port}/').ok; s.server_close()"
    proxy = "http://127.0.0.1:1"
    process = start_pytest(tmp_path, more=asks, ALL_PROXY=proxy, http_proxy=proxy)
    output = output_of(process)
    assert process.returncode == 0, output


@pytest.mark.parametrize("option", ["--collect-only", "--help"])
def test_plugin_starts_nothing_where_no_test_runs(tmp_path: Path, option: str) -> None:
    process = start_pytest(tmp_path, option, TMPDIR="/nowhere/at/all")
    output = output_of(process)
    assert process.returncode == 0, output
    assert "services:" not in output


def test_services_are_those_of_the_settings(services: Services) -> None:
    for name, service in zip(ELSEWHERE, (services.postgres, services.valkey, services.kafka), strict=True):
        assert service.address == os.environ[name]
