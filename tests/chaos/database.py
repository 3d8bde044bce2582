"""The harness's own connection to PostgreSQL: it outlives what the harness does to the server."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, LiteralString, Self, TypeAlias

import psycopg

Arguments: TypeAlias = Mapping[str, Any] | Sequence[Any] | None

APPLICATION = "chaos"
PATIENCE_S = 180.0
PAUSE_S = 0.05


class Database:
    """One connection in autocommit mode, made anew where it breaks. Not for two threads.

    A statement may run twice (the answer to the first was lost), so each must bear that.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection | None = None

    def rows(self, statement: LiteralString, arguments: Arguments = None) -> list[tuple[Any, ...]]:
        """Run a statement; return its rows, none where it gives none.

        Waits up to 60 s for a server that is away, then raises psycopg.OperationalError.
        """
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                cursor = self.connection().execute(statement, arguments)
                return cursor.fetchall() if cursor.description else []
            except (psycopg.OperationalError, psycopg.InterfaceError):
                self.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(PAUSE_S)

    def value(self, statement: LiteralString, arguments: Arguments = None) -> Any:
        """Return the first column of the first row."""
        return self.rows(statement, arguments)[0][0]

    def connection(self) -> psycopg.Connection:
        """Return the connection. Raises psycopg.OperationalError where the server is away."""
        if self._connection is None:
            self._connection = psycopg.connect(
                self._url, autocommit=True, application_name=APPLICATION, connect_timeout=5
            )
        return self._connection

    def close(self) -> None:
        """Let go of the connection."""
        opened, self._connection = self._connection, None
        if opened is not None:
            opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
