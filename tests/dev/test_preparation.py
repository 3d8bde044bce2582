"""The answer of `manage.py prepare --json`, and commands that fail."""

import os
import sys
from pathlib import Path

import pytest

from dev.guardian import Guardian
from dev.preparation import Commands, PreparationError, Prepared, read_prepared
from dev.stopping import StopRequest, StopRequested
from tests.dev.processes import processes_below


def test_read_prepared_takes_the_last_line() -> None:
    printed = (
        'a warning\n{"admin": {"username": "admin", "password": null}, "demo_job": "id", "topic": "t"}\n'
    )
    assert read_prepared(printed) == Prepared("admin", password=None, demo_job="id")


@pytest.mark.parametrize("printed", ["", "done", "[]", "{}", '{"admin": null, "demo_job": null}'])
def test_read_prepared_other_answer_is_refused(printed: str) -> None:
    with pytest.raises(PreparationError, match="printed no JSON line"):
        read_prepared(printed)


def test_commands_run_gives_what_was_printed_alone(tmp_path: Path, guardian: Guardian) -> None:
    commands = Commands(tmp_path, os.environ, guardian, check=StopRequest().check)
    code = "import sys; print('answer'); print('a warning', file=sys.stderr)"
    assert commands.run([sys.executable, "-c", code]) == "answer\n"


def test_commands_run_failing_command_gives_its_words(tmp_path: Path, guardian: Guardian) -> None:
    commands = Commands(tmp_path, os.environ, guardian, check=StopRequest().check)
    with pytest.raises(PreparationError, match=r"failed \(exit code 1\)\.\n  \| no such table"):
        commands.run([sys.executable, "-c", "raise SystemExit('no such table')"])


def test_commands_run_asked_to_stop_ends_the_command(tmp_path: Path, guardian: Guardian) -> None:
    stop = StopRequest()
    commands = Commands(tmp_path, os.environ, guardian, check=stop.check)
    stop.ask()
    with pytest.raises(StopRequested):
        commands.run(["sleep", "600"])
    assert processes_below(tmp_path) == []
