"""A process of PostgreSQL that is stopped: it answers nothing, and none of its time-outs is over."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection

from tests.waiting import wait_until

_OF_CONSUMERS = """
SELECT pid FROM pg_stat_activity WHERE application_name = %s AND datname = current_database()
"""


@contextmanager
def stopped_backends(application_name: str = "consume_prices") -> Iterator[list[int]]:
    """Stop the processes that serve an application's connections to the database of the test."""
    pids = wait_until(lambda: backends(application_name))
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield pids
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def backends(application_name: str) -> list[int]:
    """Return the ids of these processes."""
    with connection.cursor() as cursor:
        cursor.execute(_OF_CONSUMERS, [application_name])
        return [pid for (pid,) in cursor.fetchall()]
