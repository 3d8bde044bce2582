"""Dead letters written by the consumer, and the room that they may take.

A producer of a wrong version may send millions of messages that cannot be read. None of them is dropped, and
they must not fill PostgreSQL's disk either: at DEAD_LETTERS_MAX_MB the consumer takes no more, and waits.
"""

from collections.abc import Sequence
from typing import Protocol, Self

from django.conf import settings
from psycopg import Cursor

from prices.models import DeadLetter

_MB = 1_000_000

_INSERT = """
INSERT INTO dead_letters
       (topic, partition, "offset", message_timestamp, "group", key, value, headers, reason)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s::bytea[], %s)
ON CONFLICT (topic, partition, "offset", message_timestamp) DO NOTHING
"""

_SIZE_ON_DISK = "SELECT pg_total_relation_size('dead_letters')"
# What rows that are there take, as they are stored: the files may have room that deleted ones have left.
# None of the values is read for it. A row's other columns and its index entries take about 250 bytes.
_SIZE_OF_ROWS = """
SELECT coalesce(sum(
    coalesce(pg_column_size(key), 0) + coalesce(pg_column_size(value), 0)
    + coalesce(pg_column_size(headers), 0) + 250
), 0)::int8 FROM dead_letters
"""


class _Cursor(Protocol):
    """Django's cursor or psycopg's own."""

    def execute(self, query: str, /) -> object: ...
    def fetchone(self) -> tuple[int, ...] | None: ...


class DeadLettersFullError(Exception):
    """Dead letters take all the room that they may; the text says what to do."""

    @classmethod
    def of(cls, size_bytes: int) -> Self:
        """Return the error for what they take now."""
        return cls(
            f"dead letters take {size_bytes // _MB:,} MB, and DEAD_LETTERS_MAX_MB allows"
            f" {settings.DEAD_LETTERS_MAX_MB:,}: mend what sends messages that cannot be read, then replay or"
            " discard them by `manage.py dead_letters`; until there is room the consumer waits"
        )


def check_room(cursor: _Cursor) -> None:
    """Raise DeadLettersFullError where dead letters take DEAD_LETTERS_MAX_MB or more."""
    # The second look reads the whole table, so it comes only where the first one cannot tell.
    for query in (_SIZE_ON_DISK, _SIZE_OF_ROWS):
        cursor.execute(query)
        row = cursor.fetchone()
        size_bytes = row[0] if row else 0
        if size_bytes < settings.DEAD_LETTERS_MAX_MB * _MB:
            return
    raise DeadLettersFullError.of(size_bytes)


def insert_dead_letters(cursor: Cursor, dead_letters: Sequence[DeadLetter]) -> None:
    """Keep the messages that are not kept yet; raise DeadLettersFullError where there is no room."""
    if not dead_letters:
        return
    check_room(cursor)
    cursor.executemany(
        _INSERT,
        [
            (
                letter.topic,
                letter.partition,
                letter.offset,
                letter.message_timestamp,
                letter.group,
                letter.key,
                letter.value,
                letter.headers,
                letter.reason,
            )
            for letter in dead_letters
        ],
    )
