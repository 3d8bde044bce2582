"""manage.py as a process where PostgreSQL is away, or not prepared."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from django.conf import settings
from django.db import connection

ROOT = Path(settings.BASE_DIR)
AWAY = "postgres://nobody:canary@127.0.0.1:1/none"


def manage(*arguments: str, database: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "manage.py", *arguments]
    variables = os.environ | {"DATABASE_URL": database}
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", ["quota", "verify_averages", "republish --missing", "migrate"])
def test_command_without_postgresql_says_so_in_one_line(command: str) -> None:
    done = manage(*command.split(), database=AWAY)
    assert (done.returncode, done.stdout) == (1, "")
    # After warnings of system checks, if there are any.
    line = done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert line.startswith("PostgreSQL (DATABASE_URL) cannot be used: ")
    assert "canary" not in done.stderr


def test_command_on_a_database_without_tables_tells_what_makes_them() -> None:
    empty = urlunsplit(urlsplit(os.environ["DATABASE_URL"])._replace(path="/postgres"))
    done = manage("quota", database=empty)
    assert (done.returncode, done.stdout) == (1, "")
    line = done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert line.startswith("The tables are not there: run `manage.py prepare`")


def test_command_with_traceback_shows_it() -> None:
    done = manage("quota", "--traceback", database=AWAY)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.django_db(transaction=True)
def test_command_that_waits_for_a_lock_in_vain_says_so() -> None:
    parameters = connection.get_connection_params() | {"cursor_factory": psycopg.Cursor}
    database = _of_the_test()
    with psycopg.connect(**parameters) as other:
        other.execute("LOCK TABLE poll_jobs IN ACCESS EXCLUSIVE MODE")
        done = manage("quota", database=f"{database}&options=-c%20lock_timeout%3D50ms")
    assert (done.returncode, done.stdout) == (1, "")
    line = done.stderr.splitlines()[-1]
    assert line.startswith("PostgreSQL is busy with other work: canceling statement due to lock timeout")
    assert line.endswith("Try again.")


def _of_the_test() -> str:
    return urlunsplit(
        urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")
    )
