"""An end to waiting for PostgreSQL that PostgreSQL cannot set: the process that serves us may stand still."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Timer

import psycopg


@contextmanager
def time_limit(connection: psycopg.Connection, *, seconds: float) -> Iterator[None]:
    """Cut the connection where the block takes longer: what waits for PostgreSQL raises OperationalError.

    Whether a COMMIT that was on its way took effect is not known then, as with any connection that breaks.
    """
    # A duplicate stays this connection's, also where psycopg closes its own and the number is used again.
    line = socket.socket(fileno=os.dup(connection.fileno()))
    timer = Timer(seconds, _cut, [line])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        line.close()


def _cut(line: socket.socket) -> None:
    # Already closed by PostgreSQL.
    with suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
