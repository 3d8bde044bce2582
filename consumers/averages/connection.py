"""The consumer's own connection to PostgreSQL, on which nothing waits for long.

PostgreSQL's own time-outs end what is slow. They live in the process that serves the connection, and stop
with it (a container that is paused, a machine that is frozen, a disk that hangs): then `time_limit` ends the
wait.
"""

from typing import Any

import psycopg
from django.db import connection

from prices.database.sessions import SESSION
from prices.database.time_limit import time_limit

LOCK_TIMEOUT_MS = 2_000
# A process that is stopped in a transaction must not hold its locks: PostgreSQL ends the transaction.
TRANSACTION_TIMEOUT_MS = 5_000
OVERDUE_MS = 1_000
# A little longer than PostgreSQL takes by its own time-outs.
ANSWER_LIMIT_S = 6.0

_OWN: dict[str, Any] = {
    "application_name": "consume_prices",
    "connect_timeout": 2,
    # A host that vanished gives no answer at all: without these a write waits for a quarter of an hour.
    "tcp_user_timeout": 5_000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}
_DJANGOS_OWN = {"context", "cursor_factory", "prepare_threshold"}


def connect() -> psycopg.Connection:
    """Open a connection of psycopg's own to the default database, in autocommit mode.

    Statements are READ COMMITTED and bounded by LOCK_TIMEOUT_MS and TRANSACTION_TIMEOUT_MS.
    Raises psycopg.OperationalError where PostgreSQL cannot be reached, or takes the connection and does not
    answer.
    """
    parameters = {k: v for k, v in connection.get_connection_params().items() if k not in _DJANGOS_OWN}
    # Never prepared: a plan made while a partition was empty would stay when it no longer is.
    opened: psycopg.Connection = psycopg.connect(**parameters | _OWN, autocommit=True, prepare_threshold=None)
    try:
        with time_limit(opened, seconds=ANSWER_LIMIT_S):
            _set_up(opened)
    except BaseException:
        opened.close()
        raise
    return opened


def _set_up(opened: psycopg.Connection) -> None:
    opened.execute(SESSION)
    opened.execute("SET timezone = 'UTC'")
    opened.execute(f"SET lock_timeout = {LOCK_TIMEOUT_MS}")
    opened.execute(f"SET transaction_timeout = {TRANSACTION_TIMEOUT_MS}")
    # These bounds are enough, and a search for what is missing has none.
    for bound in ("statement_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout"):
        opened.execute(f"SET {bound} = 0")
    # Each statement looks a few rows up by an index. Statistics that are behind the table, as they
    # are while it grows fast, must not turn that into a scan of it.
    for plan in ("seqscan", "hashjoin", "mergejoin"):
        opened.execute(f"SET enable_{plan} = off")


def end_overdue_transactions(connection: psycopg.Connection) -> int:
    """End consumers' transactions that have outlived their time by over a second; return how many.

    PostgreSQL does so itself, except while it waits for the rest of a COPY: there
    transaction_timeout does not reach a backend, but pg_terminate_backend does.
    """
    ended = connection.execute(
        """
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE application_name = %(application_name)s AND datname = current_database()
          AND usename = current_user AND xact_start < clock_timestamp() - make_interval(secs => %(most_s)s)
        """,
        {
            "application_name": _OWN["application_name"],
            "most_s": (TRANSACTION_TIMEOUT_MS + OVERDUE_MS) / 1000,
        },
    )
    return ended.rowcount
