"""`make run` with fake processes: nothing is left behind, and every failure says what to do."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dev.embedded.parts import DATABASE, KAFKA, REDIS
from dev.guardian import ROOT
from tests.dev.runs import ELSEWHERE, PATIENCE_S, FakeRun
from tests.waiting import wait_until

Start = Callable[..., FakeRun]
# Takes its time to finish, as a consumer with a batch does.
SLOW = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(2.5), exit()))
print("up")
signal.pause()
"""


@pytest.mark.parametrize(("number", "group"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_run_asked_to_stop_leaves_nothing(runs: Start, *, number: signal.Signals, group: bool) -> None:
    run = runs(parts=(REDIS,))
    run.wait_for("ready after")
    assert len(run.leftovers()) > 3

    assert run.end(number, group=group) == 0
    assert run.leftovers() == []
    assert "Traceback" not in run.output
    assert not (run.folder / ".data" / "env").exists()


def test_run_killed_leaves_nothing(runs: Start) -> None:
    run = runs(parts=(DATABASE, REDIS, KAFKA))
    run.wait_for("ready after")
    assert {"valkey-server", "postgres"} <= {line.split()[1] for line in run.leftovers()}

    run.end(signal.SIGKILL)
    wait_until(lambda: not run.leftovers(), timeout_s=PATIENCE_S, what="nothing left")
    wait_until(lambda: not (run.folder / ".data" / "env").exists(), timeout_s=PATIENCE_S)
    log = (run.folder / ".data" / "logs" / "postgres.log").read_text()
    assert "received fast shutdown request" in log


def test_run_after_a_killed_one_waits_for_its_remains(runs: Start, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "Procfile").write_text("web: python web.py\nslow: python slow.py\n")
    first = runs()
    first.wait_for("ready after")
    first.wait_for("slow | up")
    first.end(signal.SIGKILL)

    (tmp_path / "Procfile").write_text("web: python web.py\n")
    second = runs()
    second.wait_for("Waiting until what a killed run has left is ended")
    assert "python" in str(first.leftovers())
    second.wait_for("ready after")


def test_run_asked_to_stop_while_preparing_leaves_nothing(runs: Start, tmp_path: Path) -> None:
    (tmp_path / "prepare.py").write_text("import time; time.sleep(600)")
    run = runs(parts=(REDIS,))
    run.wait_for("Preparing")

    assert run.end(signal.SIGINT, group=True) == 0
    assert run.leftovers() == []
    assert "Traceback" not in run.output


def test_run_goes_on_without_a_process_that_ends(runs: Start, tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text("web: python web.py\nworker: sh -c 'echo no money; exit 78'\n")
    run = runs(parts=(REDIS,))
    run.wait_for("ready after")
    run.wait_for("worker ended by itself (exit code 78) and stays down; the others go on.")
    note = run.folder / ".data" / "heartbeats" / "worker.stopped"
    wait_until(note.exists, timeout_s=PATIENCE_S)
    assert note.read_text() == "worker ended by itself (exit code 78) and stays down: no money"

    assert run.end(signal.SIGTERM) == 0
    assert run.leftovers() == []
    assert not note.exists()


@pytest.mark.parametrize(
    ("part", "name", "title"), [(REDIS, "valkey", "Valkey"), (DATABASE, "postgres", "PostgreSQL")]
)
def test_run_starts_a_part_again(runs: Start, part: str, name: str, title: str) -> None:
    run = runs(parts=(part,))
    run.wait_for("ready after")
    pid = next(int(line.split()[0]) for line in run.leftovers() if line.split()[1].startswith(name))

    os.kill(pid, signal.SIGKILL)
    run.wait_for(f"{title}: it ended by itself (killed by SIGKILL)")
    run.wait_for(f"{title} is started again in 0.5 s.")
    run.wait_for(f"{title} runs again.")
    assert run.process.poll() is None
    assert run.end(signal.SIGTERM) == 0
    assert run.leftovers() == []


def test_run_part_that_cannot_start_is_named_with_its_reason(runs: Start, tmp_path: Path) -> None:
    cluster = tmp_path / ".data" / "postgres" / "cluster"
    cluster.mkdir(parents=True, mode=0o700)
    (cluster / "PG_VERSION").write_text("17\n")
    run = runs(parts=(DATABASE, REDIS))

    assert run.wait_for_end() == 1
    assert run.leftovers() == []
    assert "PostgreSQL: it ended while starting (exit code 2)" in run.output
    assert "  | " in run.output
    assert f"remove {tmp_path}/.data/postgres" in run.output.replace("\n", "")


def test_run_preparation_failed_shows_its_words(runs: Start, tmp_path: Path) -> None:
    (tmp_path / "prepare.py").write_text("raise SystemExit('no such table')")
    run = runs()

    assert run.wait_for_end() == 1
    assert "`prepare.py` failed (exit code 1).\n  | no such table" in run.output


def test_run_with_its_own_kafka_refuses_settings_for_another(runs: Start, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("KAFKA_SECURITY_PROTOCOL=SASL_SSL\nKAFKA_SASL_USERNAME=prices\n")
    run = runs(parts=(KAFKA,))
    assert run.wait_for_end() == 1
    assert "KAFKA_SECURITY_PROTOCOL is SASL_SSL and KAFKA_BOOTSTRAP_SERVERS is not set" in run.output
    assert run.leftovers() == []


def test_run_second_in_the_same_folder_is_refused(runs: Start) -> None:
    first = runs()
    first.wait_for("ready after")
    second = runs()

    assert second.wait_for_end() == 1
    assert f"runs already: http://127.0.0.1:{first.port}" in second.output
    assert f"kill {first.process.pid}" in second.output
    assert first.process.poll() is None


def test_run_port_taken_names_the_port_and_what_to_do(runs: Start, tmp_path: Path) -> None:
    first = runs()
    first.wait_for("ready after")
    other = tmp_path / "other"
    other.mkdir()
    second = runs(folder=other, PORT=str(first.port))

    assert second.wait_for_end() == 1
    assert f"Port {first.port} is taken by python" in second.output
    assert "make run" in second.output


def test_run_second_start_finds_its_secret_and_tells_other_terminals(runs: Start) -> None:
    first = runs(parts=(DATABASE,))
    first.wait_for("ready after")
    env = (first.folder / ".data" / "env").read_text()
    answer = subprocess.run(
        [first.folder / ".data" / "psql", "-Atc", "SHOW fsync"], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "on\n"
    first.end(signal.SIGTERM)

    second = runs(parts=(DATABASE,))
    second.wait_for("ready after")
    assert (second.folder / ".data" / "env").read_text() == env
    assert "SECRET_KEY='" in env
    assert (second.folder / ".data" / "env").stat().st_mode & 0o777 == 0o600


def test_run_tells_other_terminals_what_its_user_has_set(runs: Start, tmp_path: Path) -> None:
    shutil.copy(ROOT / ".env.example", tmp_path)
    run = runs(FINNHUB_API_KEY="key-of-the-user", YAHOO_BUDGET="")
    run.wait_for("ready after")
    env = (run.folder / ".data" / "env").read_text()
    assert f"DATABASE_URL='{ELSEWHERE[DATABASE]}'\n" in env
    assert "FINNHUB_API_KEY='key-of-the-user'\n" in env
    assert f"PORT='{run.port}'\n" in env
    assert "YAHOO_BUDGET" not in env
    assert "key-of-the-user" not in run.output


def test_run_shows_the_generated_password_and_the_addresses(runs: Start) -> None:
    run = runs(parts=(REDIS,))
    run.wait_for("ready after")
    assert "user admin, password made-up (shown this once)" in run.output
    assert f"http://127.0.0.1:{run.port}/docs" in run.output
    assert "redis://127.0.0.1:" in run.output


def test_run_given_password_is_not_shown(runs: Start) -> None:
    run = runs(ADMIN_PASSWORD="from-the-shell")
    run.wait_for("ready after")
    assert "password from ADMIN_PASSWORD" in run.output
    assert "from-the-shell" not in run.output
