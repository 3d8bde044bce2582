"""Waiting for PostgreSQL with something in hand that must not be lost."""

import time
from collections.abc import Callable
from typing import TypeVar

from django.conf import settings
from django.db import Error, connection

from prices.database.errors import DatabaseTrouble, database_trouble

RETRY_S = 0.5
_T = TypeVar("_T")


def retry_database(store: Callable[[], _T]) -> _T:
    """Call `store` until PostgreSQL takes it, for at most POLL_DEADLINE_S: answers are not to be lost.

    It may have been taken although an error came (the answer to a COMMIT was lost), so what it
    writes must not count twice. Raises the last error once the time is over, and a bug at once.
    """
    deadline = time.monotonic() + settings.POLL_DEADLINE_S
    while True:
        try:
            return store()
        except Error as error:
            trouble = database_trouble(error)
            if trouble is None or time.monotonic() > deadline:
                raise
            if trouble == DatabaseTrouble.UNREACHABLE:
                connection.close()
            time.sleep(RETRY_S)
