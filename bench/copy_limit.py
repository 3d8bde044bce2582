"""The limit: how fast PostgreSQL takes ready-made rows, with nothing to read and nothing to compute."""

import time
from collections.abc import Iterator

from consumers.averages.connection import connect

_COLUMNS = "event_id, symbol, price, currency, average, window_size, provider, observed_at"
_READ = f"""
COPY (
    SELECT {_COLUMNS} FROM (
        SELECT *, (row_number() OVER (ORDER BY event_id) - 1) / {{rows_a_commit}} AS batch
        FROM symbol_averages
    ) AS numbered ORDER BY batch, {{order}}
) TO STDOUT (FORMAT BINARY)
"""
_WRITE = f"COPY symbol_averages ({_COLUMNS}) FROM STDIN (FORMAT BINARY)"
_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"


def read_commits(*, rows_a_commit: int, by_symbol: bool) -> list[bytes]:
    """Return the rows that the table holds now as data for COPY, so many for each commit.

    Within a commit they are in the order of their ids or, as the consumer has them, sorted by symbol: the
    index on it takes them faster so.
    """
    commits: list[bytes] = []
    rows: list[bytes] = []
    for row in _rows("symbol, event_id" if by_symbol else "event_id", rows_a_commit):
        rows.append(row)
        if len(rows) == rows_a_commit:
            commits.append(_data(rows))
            rows = []
    return commits + ([_data(rows)] if rows else [])


def copy_all(commits: list[bytes]) -> float:
    """Write them all; return the seconds that it took."""
    with connect() as connection, connection.cursor() as cursor:
        started = time.perf_counter()
        for data in commits:
            with connection.transaction(), cursor.copy(_WRITE) as copy:
                copy.write(data)
        return time.perf_counter() - started


def _rows(order: str, rows_a_commit: int) -> Iterator[bytes]:
    with connect() as connection, connection.cursor() as cursor:
        # Reading all rows is no work for the indexes that the consumer's connection insists on.
        cursor.execute("SET enable_seqscan = on")
        cursor.execute("SET transaction_timeout = 0")
        with cursor.copy(_READ.format(order=order, rows_a_commit=rows_a_commit)) as copy:
            for number, piece in enumerate(copy):
                row = bytes(piece)
                row = row.removeprefix(_HEADER) if number == 0 else row
                if row != _TRAILER and row:
                    yield row


def _data(rows: list[bytes]) -> bytes:
    return _HEADER + b"".join(rows) + _TRAILER
