"""The processes of a Procfile: their lines, and their end."""

import io
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dev.environment import Environment
from dev.guardian import Guardian
from dev.screen import Output
from dev.stopping import StopRequest
from dev.supervisor import Supervisor
from prices.maintenance.stopped_processes import stopped_processes
from tests.dev.processes import processes_below
from tests.waiting import wait_until

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up")
time.sleep(600)
"""
POLITE = """
import signal
signal.signal(signal.SIGTERM, lambda *_: (print("bye"), exit()))
print("up")
signal.pause()
"""


class Screen(io.StringIO):
    """What a person would see."""

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.getvalue(), what=f"{text!r} on the screen")


class SlowScreen(Screen):
    """A terminal that takes so long for a line that many others come meanwhile."""

    def write(self, text: str) -> int:
        time.sleep(0.1)
        return super().write(text)


@pytest.fixture(autouse=True)
def own_heartbeats(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEARTBEAT_DIR", str(tmp_path / "heartbeats"))


@pytest.fixture
def screen() -> Screen:
    return Screen()


def make_supervisor(
    procfile: str, folder: Path, guardian: Guardian, screen: Screen, each_turn: Callable[[], list[str]] = list
) -> Supervisor:
    (folder / "Procfile").write_text(procfile)
    environment = Environment(folder).for_processes(GREETING="hello")
    output = Output(screen, on_closed=lambda: None)
    return Supervisor(
        folder / "Procfile", environment=environment, guardian=guardian, output=output, each_turn=each_turn
    )


def after(screen: Screen, text: str, action: Callable[[], None]) -> None:
    def run() -> None:
        screen.wait_for(text)
        action()

    threading.Thread(target=run).start()


def test_supervisor_lines_have_the_name_of_their_process(
    tmp_path: Path, guardian: Guardian, screen: Screen
) -> None:
    (tmp_path / "half").write_bytes(b"caf\xc3\xa9 \xff half")
    procfile = "long-name: sh -c 'echo $GREETING; sleep 600'\nb: tail -f half\n"
    stop = StopRequest()
    after(screen, "hello", stop.ask)

    assert make_supervisor(procfile, tmp_path, guardian, screen).run(stop) == ""
    assert "long-name | hello\n" in screen.getvalue()
    # What has no line end yet is shown at the end, and what is no UTF-8 is marked.
    assert (
        "b         | caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{REPLACEMENT CHARACTER} half\n"
        in screen.getvalue()
    )


def test_supervisor_process_may_say_goodbye(tmp_path: Path, guardian: Guardian, screen: Screen) -> None:
    (tmp_path / "polite.py").write_text(POLITE)
    stop = StopRequest()
    after(screen, "up", stop.ask)

    assert make_supervisor("a: python polite.py\n", tmp_path, guardian, screen).run(stop) == ""
    assert "a   | bye\n" in screen.getvalue()


def test_supervisor_asked_twice_kills_at_once(tmp_path: Path, guardian: Guardian, screen: Screen) -> None:
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    stop = StopRequest()
    after(screen, "up", stop.ask)
    after(screen, "stopping", stop.ask)

    assert make_supervisor("a: python stubborn.py\n", tmp_path, guardian, screen).run(stop) == ""
    assert "a did not stop and is killed" in screen.getvalue()
    assert processes_below(tmp_path) == []


def test_supervisor_restarts_what_ends(tmp_path: Path, guardian: Guardian, screen: Screen) -> None:
    stop = StopRequest()
    after(screen, "a ended by itself (exit code 0) and is started again in 1 s", stop.ask)
    supervisor = make_supervisor(
        "a: sh -c 'echo one more'\nb: sh -c 'echo only once; sleep 600'\n", tmp_path, guardian, screen
    )

    assert supervisor.run(stop) == ""
    assert screen.getvalue().count("a   | one more\n") == 2
    assert screen.getvalue().count("b   | only once\n") == 1
    assert processes_below(tmp_path) == []


def test_supervisor_process_killed_ends_its_children(
    tmp_path: Path, guardian: Guardian, screen: Screen
) -> None:
    # The child keeps the output open: the end of the output cannot tell that the process ended.
    supervisor = make_supervisor("a: sh -c 'sleep 600 & echo $$; wait'\n", tmp_path, guardian, screen)
    stop = StopRequest()
    after(screen, "a   | ", lambda: os.kill(int(screen.getvalue().split()[-1]), signal.SIGKILL))
    after(screen, "a ended by itself (killed by SIGKILL)", stop.ask)
    assert supervisor.run(stop) == ""
    assert processes_below(tmp_path) == []


def test_supervisor_gives_up_what_ends_often(
    tmp_path: Path, guardian: Guardian, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dev.restarts.FIRST_DELAY_S", 0.01)
    stop = StopRequest()
    noted: dict[str, str] = {}

    def look_and_stop() -> None:
        noted.update(wait_until(stopped_processes))
        stop.ask()

    after(screen, "stays down; the others go on", look_and_stop)
    procfile = "a: sh -c 'echo no money; exit 3'\nb: sleep 600\n"
    assert make_supervisor(procfile, tmp_path, guardian, screen).run(stop) == ""
    assert screen.getvalue().count("a   | no money\n") == 5
    assert noted == {"a": "a ended by itself (exit code 3) 5 times within a minute and stays down: no money"}
    assert stopped_processes() == {}


def test_supervisor_restarts_nothing_that_needs_its_operator(
    tmp_path: Path, guardian: Guardian, screen: Screen
) -> None:
    stop = StopRequest()
    after(screen, "a ended by itself (exit code 78) and stays down; the others go on", stop.ask)
    procfile = "a: sh -c 'echo the log was trimmed; exit 78'\nb: sleep 600\n"
    assert make_supervisor(procfile, tmp_path, guardian, screen).run(stop) == ""
    assert screen.getvalue().count("a   | the log was trimmed\n") == 1


def test_supervisor_web_that_cannot_start_ends_all(
    tmp_path: Path, guardian: Guardian, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dev.restarts.FIRST_DELAY_S", 0.01)
    procfile = "web: sh -c 'seq 100; exit 7'\nb: sleep 600\n"
    reason = make_supervisor(procfile, tmp_path, guardian, screen).run(StopRequest())
    assert reason.startswith(
        "web ended by itself (exit code 7) 5 times within a minute. Its last lines:\n  | 86\n"
    )
    assert reason.endswith("\n  | 100")
    assert processes_below(tmp_path) == []


def test_supervisor_prints_what_each_turn_says(tmp_path: Path, guardian: Guardian, screen: Screen) -> None:
    stop = StopRequest()
    after(screen, "run | the database\n run | is back\n", stop.ask)
    supervisor = make_supervisor(
        "a: sleep 600\n", tmp_path, guardian, screen, each_turn=lambda: ["the database\nis back"]
    )
    assert supervisor.run(stop) == ""


def test_supervisor_flood_of_lines_does_not_keep_it_from_stopping(
    tmp_path: Path, guardian: Guardian, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dev.supervisor.MOST_LINES", 1)
    screen = SlowScreen()
    stop = StopRequest()
    after(screen, "many", stop.ask)
    assert make_supervisor("a: yes many\n", tmp_path, guardian, screen).run(stop) == ""
    assert processes_below(tmp_path) == []
