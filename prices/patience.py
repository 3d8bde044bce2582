"""Waiting for PostgreSQL with something in hand that must not be lost."""

import time
from collections.abc import Callable
from typing import TypeVar

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection

RETRY_S = 0.5
_T = TypeVar("_T")


def patiently(store: Callable[[], _T]) -> _T:
    """Call `store` until PostgreSQL takes it, for at most POLL_DEADLINE_S: answers are not to be lost.

    It may have been taken although an error came (the answer to a COMMIT was lost), so what it
    writes must not count twice. Raises the last OperationalError or InterfaceError once the time is over.
    """
    deadline = time.monotonic() + settings.POLL_DEADLINE_S
    while True:
        try:
            return store()
        except (OperationalError, InterfaceError):
            if time.monotonic() > deadline:
                raise
            connection.close()
            time.sleep(RETRY_S)
