"""`make` says what is missing, and makes the virtualenv only when it has to."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dev.guardian import ROOT

# Plays a Python that installs itself, and else says what it is asked to do.
GOOD_PYTHON = """#!/bin/sh
case "$1 $3" in
    -c*) exit 0;;
    "-m check") test -e .venv/has-$4; exit;;
    "-m install") ;;
    *) echo "$@"; exit;;
esac
mkdir -p .venv/bin
touch .venv/has-$4
echo "installing $4"
test "$0" = .venv/bin/python || cat "$0" > .venv/bin/python
chmod +x .venv/bin/python
"""
OTHER_PYTHON = """#!/bin/sh
[ "$1" = --version ] && echo "Python 3.15.0"
exit 1
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "Makefile", tmp_path)
    return tmp_path


def make(checkout: Path, *words: str, **pythons: str) -> subprocess.CompletedProcess[str]:
    """Run make where these are the only programs whose names begin with "python"."""
    programs = checkout / "programs"
    shutil.rmtree(programs, ignore_errors=True)
    programs.mkdir()
    for name in ("make", "sh", "mkdir", "touch", "cat", "chmod", "tee", "tail", "sed"):
        (programs / name).symlink_to(shutil.which(name) or name)
    for name, text in (pythons or {"python3": GOOD_PYTHON}).items():
        program = programs / name.replace("_", ".")
        program.write_text(text)
        program.chmod(0o755)
    # The make that runs this test exports its own.
    own = {"ARGS", "SECONDS", "SEED"}
    names = [name for name in os.environ if not name.startswith("MAKE") and name not in own]
    environment = {name: os.environ[name] for name in names}
    return subprocess.run(
        ["make", *words],
        cwd=checkout,
        env={**environment, "PATH": str(programs), "PYTHON": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_make_without_a_fitting_python_says_what_is_supported(checkout: Path) -> None:
    answer = make(checkout, "run", python3=OTHER_PYTHON)
    assert answer.returncode
    (line,) = (line for line in answer.stderr.splitlines() if not line.startswith("make"))
    assert "it takes Python 3.11 to 3.14 with its module venv" in line
    assert "apt install python3-venv" in line
    assert "python3 is: Python 3.15.0." in line


def test_make_finds_a_python_that_fits(checkout: Path) -> None:
    answer = make(checkout, "run", python3=OTHER_PYTHON, python3_11=OTHER_PYTHON, python3_13=GOOD_PYTHON)
    assert answer.stdout.splitlines() == ["installing requirements-run.txt", "-m dev run"]


def test_make_takes_the_python_that_is_named(checkout: Path) -> None:
    named = checkout / "a python"
    named.write_text(OTHER_PYTHON)
    named.chmod(0o755)
    answer = make(checkout, "run", f"PYTHON={named}")
    assert answer.returncode
    assert f"{named} is: Python 3.15.0." in answer.stderr


def test_make_installs_once_what_is_asked_for(checkout: Path) -> None:
    assert make(checkout, "run").stdout.splitlines() == ["installing requirements-run.txt", "-m dev run"]
    assert make(checkout, "run").stdout.splitlines() == ["-m dev run"]
    assert make(checkout, "soak").stdout.splitlines()[0] == "installing requirements-dev.txt"
    assert len(make(checkout, "soak").stdout.splitlines()) == 1


def test_make_test_passes_arguments(checkout: Path) -> None:
    assert make(checkout, "test", "ARGS=-k average").stdout.splitlines()[-1] == "-m pytest -k average"


def test_make_chaos_passes_seconds_and_seed(checkout: Path) -> None:
    told = make(checkout, "chaos", "SECONDS=5", "SEED=7").stdout.splitlines()[-1]
    assert told == "-m tests.chaos --seconds 5 --seed 7"
    assert make(checkout, "chaos").stdout.splitlines()[-1] == "-m tests.chaos"


def test_make_test_runs_all_tests_in_several_processes(checkout: Path) -> None:
    words = make(checkout, "test").stdout.splitlines()[-1].split()
    assert words[:5] == ["-m", "pytest", "--numprocesses", "5", "--dist"]
    assert not [word for word in words if "/" in word]


def test_make_help_lists_the_commands(checkout: Path) -> None:
    answer = make(checkout)
    for command in ("make run", "make test", "make lint", "make lock"):
        assert command in answer.stdout
