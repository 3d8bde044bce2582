"""Variables for the processes, and the file that tells them to other terminals."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from environ import FileAwareEnv

from dev.checkout import UsageError
from dev.environment import SHARED, Environment, keep_secret, settings_text, write_private
from dev.guardian import ROOT


@pytest.mark.parametrize(
    "value", ["postgres://u@/d?host=/a b/c&x=1", "a#b", 'say "hi"', "it's", "'quoted'", r"back\slash\n", " "]
)
def test_settings_text_is_read_back_exactly(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("READ_BACK", raising=False)
    (tmp_path / "env").write_text(settings_text({"READ_BACK": value}))
    FileAwareEnv.read_env(tmp_path / "env")
    assert os.environ.pop("READ_BACK") == value


def test_environment_shell_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_SHELL", "shell")
    monkeypatch.setenv("FROM_FILE", "")
    monkeypatch.delenv("FROM_FILE")
    (tmp_path / ".env").write_text("FROM_SHELL=file\nFROM_FILE=file\n")
    environment = Environment(tmp_path)
    assert (environment.text("FROM_SHELL"), environment.text("FROM_FILE")) == ("shell", "file")


def test_environment_value_in_a_file_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "url").write_text("postgres://somewhere\n")
    monkeypatch.setenv("SOME_URL_FILE", str(tmp_path / "url"))
    environment = Environment(tmp_path)
    assert environment.text("SOME_URL") == "postgres://somewhere"
    assert environment.given(("SOME_URL", "OTHER_URL")) == {"SOME_URL"}


def test_environment_unreadable_file_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MISSING_URL_FILE", str(tmp_path / "missing"))
    with pytest.raises(UsageError, match="MISSING_URL_FILE names a file that cannot be read"):
        Environment(tmp_path).text("MISSING_URL")


def test_environment_add_keeps_what_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIVEN", "given")
    monkeypatch.setenv("ABSENT", "")
    Environment(tmp_path).add({"GIVEN": "other", "ABSENT": "added"})
    assert (os.environ["GIVEN"], os.environ["ABSENT"]) == ("given", "added")


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave nothing set of what `.env.example` lists."""
    for line in (ROOT / ".env.example").read_text().splitlines():
        monkeypatch.delenv(line.partition("=")[0], raising=False)


@pytest.mark.usefixtures("no_variables")
def test_environment_shares_what_is_set_of_the_example_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / ".env.example", tmp_path)
    (tmp_path / "key").write_text("key-from-a-file\n")
    (tmp_path / ".env").write_text("FINNHUB_BUDGET=7/1m\nUNLISTED=other\n")
    monkeypatch.setenv("DATABASE_URL", "postgres://somewhere")
    monkeypatch.setenv("FINNHUB_API_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("YAHOO_BUDGET", " ")
    # What is read from `.env` is set for good: these are put back after the test.
    for name in ("FINNHUB_BUDGET", "UNLISTED"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    shared = Environment(tmp_path).shared()
    assert {name: value for name, value in shared.items() if value} == {
        "DATABASE_URL": "postgres://somewhere",
        "FINNHUB_API_KEY": "key-from-a-file",
        "FINNHUB_BUDGET": "7/1m",
    }
    assert {name for name, value in shared.items() if not value} == set(SHARED) - {"DATABASE_URL"}


def test_commands_in_another_terminal_use_what_the_run_shares(tmp_path: Path) -> None:
    for package in ("marketdata", "prices", "providers", "consumers"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "manage.py", tmp_path)
    (tmp_path / ".data").mkdir()
    of_run = {
        "SECRET_KEY": "of-the-run",
        "DATABASE_URL": "postgres://of-the-run@127.0.0.1/marketdata",
        "FINNHUB_API_KEY": "key-of-the-run",
        "LATEST_REUSE_S": "7",
        "LATEST_DEADLINE_S": "6",
    }
    (tmp_path / ".data" / "env").write_text(settings_text(of_run))
    # A run wins over the file that it was started with: the shell that started it may have said otherwise.
    (tmp_path / ".env").write_text("LATEST_REUSE_S=20\nLATEST_MAX_FETCHES=3\n")
    shell = {"PATH": os.environ["PATH"], "LATEST_DEADLINE_S": "9"}
    answer = subprocess.run(
        [sys.executable, "manage.py", "diffsettings"],
        cwd=tmp_path,
        env=shell,
        capture_output=True,
        text=True,
        check=True,
    )
    told = dict(line.removesuffix("  ###").split(" = ", 1) for line in answer.stdout.splitlines())
    names = ("SECRET_KEY", "FINNHUB_API_KEY", "LATEST_REUSE_S", "LATEST_DEADLINE_S", "LATEST_MAX_FETCHES")
    assert [told[name] for name in names] == ["'of-the-run'", "'key-of-the-run'", "7", "9", "3"]
    assert "'USER': 'of-the-run'" in told["DATABASES"]


def test_keep_secret_is_made_once_and_private(tmp_path: Path) -> None:
    secret = keep_secret(tmp_path / "secret")
    assert len(secret) > 50
    assert keep_secret(tmp_path / "secret") == secret
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_write_private_replaces_a_file_that_others_could_read(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("old")
    file.chmod(0o644)
    write_private(file, "new")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("new", 0o600)


def test_environment_text_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADMIN_PASSWORD", raising=False)
    (tmp_path / ".env").write_text("ADMIN_PASSWORD=$ecret\n")
    assert Environment(tmp_path).text("ADMIN_PASSWORD") == "$ecret"
    assert os.environ.pop("ADMIN_PASSWORD") == "$ecret"
