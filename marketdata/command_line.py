"""Django's command line, which says in one line what the user can mend: a setting, or PostgreSQL's state."""

import os
import secrets
import sys

import django
import psycopg.errors
from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db import Error

from marketdata import __version__
from prices.database.errors import DatabaseTrouble, database_trouble

# They use no part of the service: what settings ask for is given here, for a clone that has nothing yet.
_USE_NOTHING = {"simulate_provider"}
_UNUSED = {"SECRET_KEY": secrets.token_hex(32), "DATABASE_URL": "postgres://nobody@127.0.0.1/none"}


def run_command_line(arguments: list[str]) -> None:
    """Run a management command; ends the process with status 1 and one line where it cannot work.

    With --traceback the error itself is shown.
    """
    if _asks_for_version(arguments[1:]):
        sys.stdout.write(f"marketdata {__version__} (Django {django.get_version()})\n")
        return
    if _USE_NOTHING.intersection(arguments[1:2]):
        os.environ.update({name: os.environ.get(name) or value for name, value in _UNUSED.items()})
    try:
        execute_from_command_line(arguments)
    except ImproperlyConfigured as error:
        sys.exit(str(error))
    except Error as error:
        line = _in_one_line(error)
        if line is None or "--traceback" in arguments:
            raise
        sys.exit(line)


def _asks_for_version(options: list[str]) -> bool:
    # Of one command, too. Django's own answer is Django's version alone.
    return options in (["version"], ["--version"]) or options[1:] == ["--version"]


def _in_one_line(error: Error) -> str | None:
    """Return what is wrong with PostgreSQL; None for what is a bug."""
    reason = str(error).strip().partition("\n")[0]
    trouble = database_trouble(error)
    if trouble == DatabaseTrouble.UNREACHABLE:
        return f"PostgreSQL (DATABASE_URL) cannot be used: {reason}"
    if trouble is not None:
        again = " Try again." if trouble == DatabaseTrouble.BUSY else ""
        return f"PostgreSQL {trouble}: {reason}.{again}"
    if isinstance(error.__cause__, psycopg.errors.UndefinedTable):
        return f"The tables are not there: run `manage.py prepare` ({reason})."
    return None
