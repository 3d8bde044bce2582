"""Variables for the processes, and the file that tells them to other terminals."""

import os
from pathlib import Path

import pytest
from environ import FileAwareEnv

from dev.checkout import UsageError
from dev.environment import Environment, keep_secret, settings_text, write_private


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
