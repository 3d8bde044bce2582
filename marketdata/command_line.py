"""Django's command line, which says in one line what the user can mend: a setting, or PostgreSQL away."""

import os
import secrets
import sys

import psycopg.errors
from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db import DatabaseError, InterfaceError, OperationalError, ProgrammingError

# They use no part of the service: what settings ask for is given here, for a clone that has nothing yet.
_USE_NOTHING = {"simulate_provider"}
_UNUSED = {"SECRET_KEY": secrets.token_hex(32), "DATABASE_URL": "postgres://nobody@127.0.0.1/none"}


def run_command_line(arguments: list[str]) -> None:
    """Run a management command; ends the process with status 1 and one line where it cannot work.

    With --traceback the error itself is shown.
    """
    if _USE_NOTHING.intersection(arguments[1:2]):
        os.environ.update({name: os.environ.get(name) or value for name, value in _UNUSED.items()})
    try:
        execute_from_command_line(arguments)
    except ImproperlyConfigured as error:
        sys.exit(str(error))
    except (InterfaceError, OperationalError, ProgrammingError) as error:
        line = _in_one_line(error)
        if line is None or "--traceback" in arguments:
            raise
        sys.exit(line)


def _in_one_line(error: DatabaseError | InterfaceError) -> str | None:
    """Say what is wrong with PostgreSQL; None for what is a bug."""
    reason = str(error).strip().partition("\n")[0]
    if isinstance(error, ProgrammingError):
        is_unprepared = isinstance(error.__cause__, psycopg.errors.UndefinedTable)
        return f"The tables are not there: run `manage.py prepare` ({reason})." if is_unprepared else None
    return f"PostgreSQL (DATABASE_URL) cannot be used: {reason}"
