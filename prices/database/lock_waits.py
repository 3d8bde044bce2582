"""Waiting for locks a moment at a time: behind who waits, all others queue who need a table."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from django.db import Error, connection
from django.db.backends.base.base import BaseDatabaseWrapper

from prices.database.errors import DatabaseTrouble, database_trouble

LOCK_TIMEOUT = "300ms"
# Who has queued meanwhile goes first.
PAUSE_S = 1.0
PATIENCE_S = 60.0
_LOOK_EVERY_S = 0.1

_BLOCKERS = """
SELECT format('%%s (user %%s, application "%%s", %%s since %%s UTC)', pid, usename, application_name, state,
              to_char(coalesce(xact_start, state_change) AT TIME ZONE 'UTC', 'HH24:MI:SS'))
FROM pg_stat_activity WHERE pid = ANY(pg_blocking_pids(%s)) ORDER BY pid
"""

_T = TypeVar("_T")


class LockHeldError(RuntimeError):
    """Other sessions held a lock for the whole time; the text names those that were seen last."""


def in_short_waits(work: Callable[[], _T]) -> _T:
    """Call `work` until it gets the locks that it needs, for PATIENCE_S at most; it can be called again.

    Each statement waits for a lock for at most LOCK_TIMEOUT. Raises LockHeldError.
    """
    deadline = time.monotonic() + PATIENCE_S
    with _lock_timeout(), _Blockers.watched() as blockers:
        while True:
            try:
                return work()
            except Error as error:
                if database_trouble(error) != DatabaseTrouble.BUSY:
                    raise
                if time.monotonic() + PAUSE_S >= deadline:
                    raise LockHeldError(blockers.seen() or str(error).partition("\n")[0]) from error
                time.sleep(PAUSE_S)


@contextmanager
def _lock_timeout() -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, false)", [LOCK_TIMEOUT])
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("RESET lock_timeout")


class _Blockers:
    """Looks who keeps this thread's connection waiting: afterwards nobody can tell."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._seen: list[str] = []
        self._is_over = threading.Event()

    @classmethod
    @contextmanager
    def watched(cls) -> Iterator["_Blockers"]:
        blockers = cls(connection.connection.info.backend_pid)
        # A connection of its own belongs to the thread that makes it.
        looking = threading.Thread(target=lambda: blockers._look(connection.copy()), daemon=True)
        looking.start()
        try:
            yield blockers
        finally:
            blockers._is_over.set()
            looking.join()

    def seen(self) -> str:
        return ", ".join(self._seen)

    def _look(self, own: BaseDatabaseWrapper) -> None:
        try:
            while not self._is_over.wait(_LOOK_EVERY_S):
                with own.cursor() as cursor:
                    cursor.execute(_BLOCKERS, [self._pid])
                    self._seen = [text for (text,) in cursor.fetchall()] or self._seen
        except Error:
            # It only makes a message better.
            return
        finally:
            own.close()
