from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from marketdata.env import env_bool, env_choice, env_int, env_list, env_required, env_text

NAME = "MARKETDATA_TEST_VALUE"


def test_text_unset_is_the_default() -> None:
    assert env_text(NAME, "x") == "x"


def test_text_empty_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, " ")
    assert env_text(NAME, "x") == "x"
    assert env_int(NAME, 5, minimum=1) == 5
    assert env_bool(NAME, default=True)


def test_text_from_file_wins_and_loses_its_newline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("from-file\n")
    monkeypatch.setenv(f"{NAME}_A", "from-variable")
    monkeypatch.setenv(f"{NAME}_A_FILE", str(secret))
    assert env_text(f"{NAME}_A") == "from-file"


def test_text_from_unreadable_file_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{NAME}_B_FILE", "/nowhere/at/all")
    with pytest.raises(ImproperlyConfigured, match=f"{NAME}_B_FILE"):
        env_text(f"{NAME}_B")


def test_required_unset_names_the_variable_and_what_to_do() -> None:
    with pytest.raises(ImproperlyConfigured, match=f"{NAME} is not set. Do this."):
        env_required(NAME, hint="Do this.")


@pytest.mark.parametrize("text", ["x", "1.5", "0", "11"])
def test_int_out_of_bounds_names_the_variable(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(NAME, text)
    with pytest.raises(ImproperlyConfigured, match=f"{NAME} must be a whole number from 1 to 10"):
        env_int(NAME, 5, minimum=1, maximum=10)


def test_int_set_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, " 7 ")
    assert env_int(NAME, 5, minimum=1, maximum=10) == 7


@pytest.mark.parametrize(("text", "value"), [("1", True), ("Yes", True), ("off", False), ("False", False)])
def test_bool_set_is_read(monkeypatch: pytest.MonkeyPatch, text: str, value: bool) -> None:
    monkeypatch.setenv(NAME, text)
    assert env_bool(NAME, default=not value) is value


def test_bool_of_other_text_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "maybe")
    with pytest.raises(ImproperlyConfigured, match=NAME):
        env_bool(NAME, default=True)


def test_list_is_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, " a, b,,c ")
    assert env_list(NAME) == ["a", "b", "c"]


def test_choice_of_something_else_names_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "z")
    with pytest.raises(ImproperlyConfigured, match=f"{NAME} must be one of a, b"):
        env_choice(NAME, "a", allowed=("a", "b"))
