import traceback
from pathlib import Path

import certifi
import pytest
from django.core.exceptions import ImproperlyConfigured
from environ.fileaware_mapping import FileAwareMapping

from marketdata.env import (
    env_bool,
    env_certificates,
    env_choice,
    env_database,
    env_int,
    env_list,
    env_origins,
    env_proxy,
    env_required,
    env_text,
    load_env_files,
)

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


@pytest.mark.parametrize("value", ["$ecret", "$HOME", "\\$5", "$", "a#b", "'x", "50%+1", "${HOME}"])
def test_text_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str) -> None:
    monkeypatch.setenv(f"{NAME}_C", value)
    assert env_text(f"{NAME}_C") == value
    (tmp_path / "secret").write_text(value)
    monkeypatch.setenv(f"{NAME}_{abs(hash(value))}_FILE", str(tmp_path / "secret"))
    assert env_text(f"{NAME}_{abs(hash(value))}") == value


def test_env_file_value_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("D", "E"):
        monkeypatch.delenv(f"{NAME}_{name}", raising=False)
    (tmp_path / ".env").write_text(
        f"\ufeff{NAME}_D=$ecret#1\n# comment\n\n{NAME}_E='$HOME'\n", encoding="utf-8"
    )
    monkeypatch.setattr("environ.FileAwareEnv.ENVIRON", FileAwareMapping({}))
    load_env_files(tmp_path)
    assert env_text(f"{NAME}_D") == "$ecret#1"
    assert env_text(f"{NAME}_E") == "$HOME"


def test_env_file_bad_line_is_named_and_not_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / ".env").write_text("A_NAME=1\nFINNHUB_API_KEY = hush-hush\n")
    with pytest.raises(ImproperlyConfigured, match=r"^\.env, line 2: write NAME=value") as caught:
        load_env_files(tmp_path)
    assert "hush" not in str(caught.value) + caplog.text


def test_file_that_is_no_text_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\xff\xfe")
    monkeypatch.setenv(f"{NAME}_F_FILE", str(tmp_path / "secret"))
    with pytest.raises(ImproperlyConfigured, match=f"{NAME}_F_FILE names a file that is not UTF-8 text"):
        env_text(f"{NAME}_F")


@pytest.mark.parametrize(
    "password", ["$ecret", "p+lus", "sh#arp", "per%25cent", "ques?tion", "b{ra}ce", "semi;colon"]
)
def test_database_password_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    monkeypatch.setenv(NAME, f"postgres://me:{password}@db.example:5433/prices?sslmode=require")
    assert env_database(NAME, hint="") == {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "prices",
        "USER": "me",
        "PASSWORD": password.replace("%25", "%"),
        "HOST": "db.example",
        "PORT": "5433",
        "OPTIONS": {"sslmode": "require"},
    }


def test_database_of_a_socket_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "postgres://me@/prices?host=/tmp/a%20folder")
    assert env_database(NAME, hint="")["HOST"] == "/tmp/a folder"


@pytest.mark.parametrize(
    "url",
    [
        "mysql://me:hush@h/db",
        "postgres://me:hush%zz@h/db",
        "postgres://me:hush@h/db?no=1",
        "postgres://me:hush@h",
    ],
)
def test_database_that_cannot_be_read_is_not_shown(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv(NAME, url)
    with pytest.raises(ImproperlyConfigured, match=f"^{NAME} ") as caught:
        env_database(NAME, hint="")
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", ""),
        ("http://proxy:3128", "http://proxy:3128"),
        ("proxy.example:3128", "http://proxy.example:3128"),
        ("https://user:p%40ss@[::1]:3128/", "https://user:p%40ss@[::1]:3128/"),
        ("socks5h://127.0.0.1:1080", "socks5h://127.0.0.1:1080"),
    ],
)
def test_proxy_is_read(monkeypatch: pytest.MonkeyPatch, text: str, url: str) -> None:
    monkeypatch.setenv(NAME, text)
    assert env_proxy(NAME) == url


@pytest.mark.parametrize(
    "text",
    [
        *("http://", "proxy", "://:1", "ftp://secret@proxy:1", "http://user:secret@proxy"),
        *("http://user:secret@proxy:99999", "http://user:secret/@proxy:1", "http://proxy:1/secret"),
        "http://user:secret word@proxy:1",
    ],
)
def test_proxy_that_cannot_be_read_is_not_shown(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(NAME, text)
    with pytest.raises(ImproperlyConfigured, match=f"{NAME} cannot be read") as caught:
        env_proxy(NAME)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file"),
        ("", "no certificate"),
        ("text", "no certificate"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no certificate"),
    ],
)
def test_file_without_certificates_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None, problem: str
) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_text(content)
    monkeypatch.setenv(NAME, str(tmp_path / "ca.pem"))
    with pytest.raises(ImproperlyConfigured, match=f"{NAME} names a file.*{problem}"):
        env_certificates(NAME)


def test_certificates_are_named_by_their_whole_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(certifi.where()).parent)
    monkeypatch.setenv(NAME, "cacert.pem")
    assert env_certificates(NAME) == certifi.where()


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("", []),
        ("*", ["*"]),
        ("https://example.org", ["https://example.org"]),
        (
            " http://localhost:5173, https://a.b-c.example ",
            ["http://localhost:5173", "https://a.b-c.example"],
        ),
        ("http://[::1]:3000,http://127.0.0.1:3000", ["http://[::1]:3000", "http://127.0.0.1:3000"]),
    ],
)
def test_origins_are_read(monkeypatch: pytest.MonkeyPatch, text: str, origins: list[str]) -> None:
    monkeypatch.setenv(NAME, text)
    assert env_origins(NAME) == origins


@pytest.mark.parametrize(
    "origin",
    [
        *("example.org", "https://", "https://example.org/", "https://example.org/a", "ftp://example.org"),
        *("HTTPS://example.org", "https://Example.org", "https://example.org:443", "http://example.org:80"),
        *("https://example.org:x", "https://example.org?a=1", "https://me@example.org", "null", "file://"),
        *("https://ex\u00e4mple.org", "https://[::1", "https://*.example.org", "*,https://example.org"),
    ],
)
def test_origin_that_no_browser_sends_is_told(monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    monkeypatch.setenv(NAME, origin)
    with pytest.raises(ImproperlyConfigured, match=f"{NAME} cannot hold '.*https://host or http://host:port"):
        env_origins(NAME)
