"""What only one process does at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import connection


@dataclass(frozen=True, slots=True)
class Lock:
    """A session's lock: true while it is held, so not after the connection was lost and made anew."""

    was_taken: bool
    session: Any

    def __bool__(self) -> bool:
        return self.was_taken and connection.connection is self.session and not self.session.closed


@contextmanager
def try_advisory_lock(name: str) -> Iterator[Lock]:
    """Yield a lock that is true while this is the only one, over all processes, that does what is named so.

    It waits for nobody, and holds no transaction open.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(hashtext(%s))", [name])
        (was_taken,) = cursor.fetchone()
    lock = Lock(was_taken, connection.connection)
    try:
        yield lock
    finally:
        if lock:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(hashtext(%s))", [name])
