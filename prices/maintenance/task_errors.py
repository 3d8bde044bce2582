"""Tasks while PostgreSQL does not do what they need: a line in the log when that begins and when it ends."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from django.db import Error, connection

from prices.database.errors import DatabaseTrouble, database_trouble
from prices.outage_log import Outage

_P = ParamSpec("_P")
_database = Outage(began="tasks.database_away", ended="tasks.database_back")


def without_database_errors(task: Callable[_P, None]) -> Callable[_P, None]:
    """Return the task with an end instead of an error where PostgreSQL is away, busy, full or read-only.

    For tasks that are sent again, or whose slots are accounted for: nothing is lost by their end.
    """

    @wraps(task)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            task(*args, **kwargs)
        except Error as error:
            trouble = database_trouble(error)
            if trouble is None:
                raise
            if trouble == DatabaseTrouble.UNREACHABLE:
                connection.close()
            _database.begin(f"PostgreSQL {trouble}: {str(error).partition(chr(10))[0]}")
        else:
            _database.end()

    return run
