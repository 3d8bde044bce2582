"""`make` says what is missing, and makes the virtualenv only when it has to."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dev.guardian import ROOT

# Plays a Python that makes an empty virtualenv whose own Python says what it is asked to do.
GOOD_PYTHON = """#!/bin/sh
if [ "$1" = -m ] && [ "$2" = venv ]; then
    mkdir -p .venv/bin
    printf '#!/bin/sh\\necho "$@" | tee -a asked\\n' > .venv/bin/python
    chmod +x .venv/bin/python
fi
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements-dev.txt").write_text("one==1\n")
    return tmp_path


def make(checkout: Path, *words: str, python: str = GOOD_PYTHON) -> subprocess.CompletedProcess[str]:
    program = checkout / "some-python"
    program.write_text(python)
    program.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *words, f"PYTHON={program}"],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_make_run_with_an_old_python_says_so(checkout: Path) -> None:
    answer = make(checkout, "run", python="#!/bin/sh\nexit 1\n")
    assert answer.returncode
    assert "older than Python 3.11" in answer.stderr


def test_make_run_without_venv_names_the_package(checkout: Path) -> None:
    answer = make(checkout, "run", python='#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\n')
    assert answer.returncode
    assert "apt install python3-venv" in answer.stderr


def test_make_installs_once_and_again_only_for_other_requirements(checkout: Path) -> None:
    first = make(checkout, "run")
    second = make(checkout, "run")
    (checkout / "requirements-dev.txt").write_text("one==2\n")
    third = make(checkout, "run")

    assert [answer.stdout.count("Installing") for answer in (first, second, third)] == [1, 0, 1]
    assert {answer.stdout.splitlines()[-1] for answer in (first, second, third)} == {"-m dev run"}


def test_make_install_cut_off_is_done_again(checkout: Path) -> None:
    failing = GOOD_PYTHON.replace("tee -a asked", "grep -v pip")
    assert make(checkout, "run", python=failing).returncode
    assert "Installing" in make(checkout, "run").stdout


def test_make_virtualenv_of_another_path_is_made_anew(checkout: Path, tmp_path: Path) -> None:
    make(checkout, "run")
    moved = tmp_path.with_name(f"{tmp_path.name}-moved")
    checkout.rename(moved)
    assert "Installing" in make(moved, "run").stdout
    moved.rename(checkout)


def test_make_test_passes_arguments(checkout: Path) -> None:
    assert make(checkout, "test", "ARGS=-k average").stdout.splitlines()[-1] == "-m pytest -k average"


def test_make_chaos_passes_seconds_and_seed(checkout: Path) -> None:
    told = make(checkout, "chaos", "SECONDS=5", "SEED=7").stdout.splitlines()[-1]
    assert told == "-m tests.chaos --seconds 5 --seed 7"
    assert make(checkout, "chaos").stdout.splitlines()[-1] == "-m tests.chaos"


def test_make_test_runs_each_test_in_one_of_two_halves(checkout: Path) -> None:
    lines = make(checkout, "test").stdout.splitlines()
    others, processes = (line.split() for line in lines if line.startswith("-m pytest"))
    assert processes[2:]
    assert all((ROOT / path).exists() for path in processes[2:])
    assert others[2:] == ["tests", *(f"--ignore={path}" for path in processes[2:])]


@pytest.mark.parametrize("half", ["tests/dev", "--ignore"])
def test_make_test_fails_with_either_half(checkout: Path, half: str) -> None:
    failing = GOOD_PYTHON.replace("asked", f'asked; case "$*" in *{half}*) exit 1;; esac')
    make(checkout, "run", python=failing)
    assert make(checkout, "test", python=failing).returncode


def test_make_help_lists_the_commands(checkout: Path) -> None:
    answer = make(checkout)
    for command in ("make run", "make test", "make lint", "make lock"):
        assert command in answer.stdout
