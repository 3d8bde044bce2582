"""What the store does in SQL. Each function works inside the transaction of the cursor it is given."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from psycopg import Cursor

from consumers.averages import Window
from prices.events import PriceEvent
from prices.models import DeadLetter
from prices.models.symbol_average import WINDOW_POINTS

# PostgreSQL has room for a few thousand locks in all: above this, one lock stands for all symbols.
MAX_SYMBOL_LOCKS = 512

NO_ID = UUID(int=0)
_RECENT_MS = timedelta(days=1) // timedelta(milliseconds=1)


class AverageRow(NamedTuple):
    """One row of symbol_averages, in the order of the columns of COPY."""

    event_id: UUID
    symbol: str
    price: Decimal
    average: Decimal | None
    window_size: int
    provider: str
    observed_at: datetime | None


_COPY = f"""
COPY symbol_averages ({", ".join(AverageRow._fields)}) FROM STDIN (FORMAT BINARY)
"""
_COPY_TYPES = ["uuid", "text", "numeric", "numeric", "int2", "text", "timestamptz"]

_LOCK_SYMBOLS = """
SELECT pg_advisory_xact_lock(hashtext('symbol_averages'), key) FROM (
    SELECT DISTINCT hashtext(symbol) AS key FROM unnest(%s::text[]) AS batch (symbol) ORDER BY key
) AS keys
"""

# The second bound is the first, as a constant: the planner leaves older partitions out.
_STALE_SYMBOLS = """
SELECT symbol FROM unnest(%(symbols)s::text[], %(oldest)s::uuid[]) AS held (symbol, oldest)
WHERE %(points)s <> (
    SELECT count(*) FROM symbol_averages AS stored
    WHERE stored.symbol = held.symbol
      AND stored.event_id >= held.oldest AND stored.event_id >= %(oldest_of_all)s
)
"""

_LAST_POINTS = """
SELECT batch.symbol, last.event_id, last.price
FROM unnest(%(symbols)s::text[]) AS batch (symbol) CROSS JOIN LATERAL (
    SELECT event_id, price FROM symbol_averages AS stored
    WHERE stored.symbol = batch.symbol AND stored.event_id >= %(since)s
    ORDER BY event_id DESC LIMIT %(points)s
) AS last ORDER BY last.event_id
"""

# Their averages follow in the same transaction; until then they pass for a symbol's first point.
_INSERT_LATE = """
INSERT INTO symbol_averages (event_id, symbol, price, average, window_size, provider, observed_at)
SELECT event_id, symbol, price, NULL, 1, provider, observed_at
FROM unnest(%(event_ids)s::uuid[], %(symbols)s::text[], %(prices)s::numeric[], %(providers)s::text[],
            %(observed)s::timestamptz[])
     AS late (event_id, symbol, price, provider, observed_at)
ON CONFLICT (event_id) DO NOTHING
RETURNING event_id, symbol
"""

# A late row changes the windows that it is in: its own and those of its next four successors. Times
# 0.2, because PostgreSQL's division rounds. The row gets a new tx, as a reader of the stream must see it.
_AVERAGE_AROUND = """
WITH touched AS (
    SELECT DISTINCT following.event_id, late.symbol
    FROM unnest(%(event_ids)s::uuid[], %(symbols)s::text[]) AS late (event_id, symbol)
    CROSS JOIN LATERAL (
        SELECT event_id FROM symbol_averages AS stored
        WHERE stored.symbol = late.symbol AND stored.event_id >= late.event_id
        ORDER BY event_id LIMIT %(points)s
    ) AS following
), averaged AS (
    SELECT touched.event_id, count(*) AS size,
           CASE WHEN count(*) = %(points)s THEN trim_scale(sum(five.price) * 0.2) END AS average
    FROM touched CROSS JOIN LATERAL (
        SELECT price FROM symbol_averages AS stored
        WHERE stored.symbol = touched.symbol AND stored.event_id <= touched.event_id
        ORDER BY event_id DESC LIMIT %(points)s
    ) AS five GROUP BY touched.event_id
)
UPDATE symbol_averages AS stored
SET average = averaged.average, window_size = averaged.size, tx = DEFAULT
FROM averaged
WHERE stored.event_id = averaged.event_id
  AND (stored.average, stored.window_size) IS DISTINCT FROM (averaged.average, averaged.size)
"""

_INSERT_DEAD_LETTER = """
INSERT INTO dead_letters (topic, partition, "offset", message_timestamp, "group", key, value, reason)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (topic, partition, "offset", message_timestamp) DO NOTHING
"""


def lock_symbols(cursor: Cursor, symbols: Collection[str]) -> None:
    """Wait until no other transaction writes rows of these symbols, and keep others out until the end.

    A statement of its own: what is read after it sees all that the others have committed.
    """
    if len(symbols) <= MAX_SYMBOL_LOCKS:
        cursor.execute("SELECT pg_advisory_xact_lock_shared(hashtext('symbol_averages'))")
        cursor.execute(_LOCK_SYMBOLS, [list(symbols)])
    else:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('symbol_averages'))")


def stale_symbols(cursor: Cursor, windows: Mapping[str, Window]) -> set[str]:
    """Give the symbols whose full windows are not, or no longer, the last five points stored."""
    if not windows:
        return set()
    oldest = [window.event_ids[0] for window in windows.values()]
    cursor.execute(
        _STALE_SYMBOLS,
        {
            "symbols": list(windows),
            "oldest": oldest,
            "oldest_of_all": min(oldest),
            "points": WINDOW_POINTS,
        },
    )
    return {symbol for (symbol,) in cursor}


def read_windows(cursor: Cursor, symbols: Collection[str], *, near: UUID) -> dict[str, Window]:
    """Give each symbol's window as symbol_averages holds it; an empty one where it holds none.

    Looks first at what is at most a day older than `near`: older partitions are opened for those
    symbols alone that have fewer than five points there.
    """
    windows = _windows_since(cursor, symbols, UUID(int=max(near.int - (_RECENT_MS << 80), 0)))
    short = [symbol for symbol in symbols if not windows[symbol].is_full]
    return windows | _windows_since(cursor, short, NO_ID)


def _windows_since(cursor: Cursor, symbols: Collection[str], since: UUID) -> dict[str, Window]:
    windows = dict.fromkeys(symbols, Window())
    if symbols:
        arguments = {"symbols": list(symbols), "since": since, "points": WINDOW_POINTS}
        for symbol, event_id, price in cursor.execute(_LAST_POINTS, arguments):
            windows[symbol] = windows[symbol].add(event_id, price)
    return windows


def copy_rows(cursor: Cursor, rows: Sequence[AverageRow]) -> None:
    """Add finished rows. Raises UniqueViolation where one of the ids is stored already."""
    if not rows:
        return
    with cursor.copy(_COPY) as copy:
        copy.set_types(_COPY_TYPES)
        for row in rows:
            copy.write_row(row)


def insert_late(cursor: Cursor, events: Sequence[PriceEvent]) -> None:
    """Add the events that are not stored yet, and average their rows and those that follow anew."""
    if not events:
        return
    cursor.execute(
        _INSERT_LATE,
        {
            "event_ids": [event.event_id for event in events],
            "symbols": [event.symbol for event in events],
            "prices": [event.price for event in events],
            "providers": [event.provider for event in events],
            "observed": [event.observed_at for event in events],
        },
    )
    added = cursor.fetchall()
    if added:
        event_ids, symbols = zip(*added, strict=True)
        cursor.execute(
            _AVERAGE_AROUND,
            {"event_ids": list(event_ids), "symbols": list(symbols), "points": WINDOW_POINTS},
        )


def insert_dead_letters(cursor: Cursor, dead_letters: Sequence[DeadLetter]) -> None:
    """Keep the messages that are not kept yet."""
    cursor.executemany(
        _INSERT_DEAD_LETTER,
        [
            (
                letter.topic,
                letter.partition,
                letter.offset,
                letter.message_timestamp,
                letter.group,
                letter.key,
                letter.value,
                letter.reason,
            )
            for letter in dead_letters
        ],
    )
