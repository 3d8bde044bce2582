"""What the store does in SQL. Each function works inside the transaction of the cursor it is given."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from itertools import chain, groupby
from operator import itemgetter
from uuid import UUID

import numpy as np
from psycopg import Cursor

from consumers.averages import Batch
from consumers.columns import (
    FRACTION,
    ONE,
    WHOLE,
    Events,
    Integers,
    decimal_of,
    halves_of_id,
    id_of,
    moment_of,
)
from consumers.rows import COLUMNS
from prices.models import DeadLetter
from prices.models.symbol_average import WINDOW_POINTS

# PostgreSQL has room for a few thousand locks in all: above this, one lock stands for all symbols.
MAX_SYMBOL_LOCKS = 512

NO_ID = UUID(int=0)
_RECENT_MS = timedelta(days=1) // timedelta(milliseconds=1)


_COPY = f"COPY symbol_averages ({', '.join(COLUMNS)}) FROM STDIN (FORMAT BINARY)"

_LOCK_SYMBOLS = """
SELECT pg_advisory_xact_lock(hashtext('symbol_averages'), key) FROM (
    SELECT DISTINCT hashtext(symbol) AS key FROM unnest(%s::text[]) AS batch (symbol) ORDER BY key
) AS keys
"""

# The second bound is the first, as a constant: the planner leaves older partitions out.
_STALE_SYMBOLS = """
SELECT symbol FROM unnest(%(symbols)s::text[], %(oldest)s::uuid[], %(counts)s::int[])
     AS held (symbol, oldest, points)
WHERE points <> (
    SELECT count(*) FROM symbol_averages AS stored
    WHERE stored.symbol = held.symbol
      AND stored.event_id >= held.oldest AND stored.event_id >= %(oldest_of_all)s
)
"""

_LAST_POINTS = """
SELECT batch.symbol, last.event_id, trunc(last.price)::int8,
       ((last.price - trunc(last.price)) * %(one)s)::int8
FROM unnest(%(symbols)s::text[]) AS batch (symbol) CROSS JOIN LATERAL (
    SELECT event_id, price FROM symbol_averages AS stored
    WHERE stored.symbol = batch.symbol AND stored.event_id >= %(since)s
    ORDER BY event_id DESC LIMIT %(most)s
) AS last ORDER BY batch.symbol, last.event_id
"""

_UPDATE_AVERAGES = """
UPDATE symbol_averages AS stored
SET average = changed.average, window_size = changed.window_size, tx = DEFAULT
FROM unnest(%(event_ids)s::uuid[], %(averages)s::numeric[], %(sizes)s::int2[])
     AS changed (event_id, average, window_size)
WHERE stored.event_id = changed.event_id AND stored.event_id >= %(lowest)s
  AND (stored.average, stored.window_size) IS DISTINCT FROM (changed.average, changed.window_size)
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


def lock_and_look(
    cursor: Cursor, symbols: Collection[str], held: Mapping[str, Integers]
) -> tuple[int, set[str]]:
    """Lock the symbols, and look whether points that are held are all that is stored from the oldest on.

    `held` has points of some of the symbols, by id. Gives the number that each rebuild raises (what was read
    before it may have changed), and the symbols that have more points, or fewer. One round trip.
    """
    oldest = [id_of(points[0]) for points in held.values()]
    with cursor.connection.pipeline():
        lock_symbols(cursor, symbols)
        epoch = cursor.connection.execute("SELECT last_value FROM averages_epoch")
        arguments = {
            "symbols": list(held),
            "oldest": oldest,
            "counts": list(map(len, held.values())),
            "oldest_of_all": min(oldest, default=NO_ID),
        }
        stale = cursor.connection.execute(_STALE_SYMBOLS, arguments)
    (number,) = epoch.fetchone()  # type: ignore[misc]  # has a row
    return int(number), {symbol for (symbol,) in stale}


def read_last_points(
    cursor: Cursor, symbols: Collection[str], *, near: UUID, most: int
) -> dict[str, Integers]:
    """Give up to `most` of each symbol's last stored points; symbols without any are left out.

    Looks first at what is at most a day older than `near`: older partitions are opened for those
    symbols alone that have fewer points there.
    """
    points = _points_since(cursor, symbols, UUID(int=max(near.int - (_RECENT_MS << 80), 0)), most=most)
    short = [symbol for symbol in symbols if len(points.get(symbol, ())) < most]
    return points | _points_since(cursor, short, NO_ID, most=most)


def _points_since(cursor: Cursor, symbols: Collection[str], since: UUID, *, most: int) -> dict[str, Integers]:
    if not symbols:
        return {}
    arguments = {"symbols": list(symbols), "since": since, "most": most, "one": ONE}
    rows = cursor.execute(_LAST_POINTS, arguments).fetchall()
    return {
        symbol: np.array([(*halves_of_id(event_id), whole, part) for _symbol, event_id, whole, part in found])
        for symbol, found in groupby(rows, itemgetter(0))
    }


def copy_rows(cursor: Cursor, pieces: Iterable[bytes]) -> None:
    """Add finished rows, as rows.py packs them. Raises UniqueViolation where an id is stored already."""
    left = iter(pieces)
    first = next(left, None)
    if first is not None:
        with cursor.copy(_COPY) as copy:
            for piece in chain([first], left):
                copy.write(piece)


def update_averages(
    cursor: Cursor, event_ids: Sequence[UUID], *, averages: Sequence[Decimal | None], sizes: Sequence[int]
) -> None:
    """Give stored rows other averages. Those that change get a new tx, for readers of the stream."""
    if event_ids:
        arguments = {"event_ids": event_ids, "averages": averages, "sizes": sizes, "lowest": min(event_ids)}
        cursor.execute(_UPDATE_AVERAGES, arguments)


def insert_late(cursor: Cursor, batch: Batch, events: Events) -> None:
    """Add the batch's events that are not stored yet, and average their rows and those that follow anew."""
    if not len(batch.points):
        return
    symbols = np.repeat(np.array(batch.symbols, dtype=object), np.diff(batch.bounds))
    arrival = batch.arrival.tolist()
    cursor.execute(
        _INSERT_LATE,
        {
            "event_ids": [id_of(point) for point in batch.points],
            "symbols": symbols.tolist(),
            "prices": [decimal_of(point[WHOLE], point[FRACTION]) for point in batch.points],
            "providers": [events.sources[code] for code in events.source_codes[arrival]],
            "observed": [moment_of(events.observed[place]) for place in arrival],
        },
    )
    added = cursor.fetchall()
    if added:
        added_ids, added_symbols = (list(column) for column in zip(*added, strict=True))
        arguments = {"event_ids": added_ids, "symbols": added_symbols, "points": WINDOW_POINTS}
        cursor.execute(_AVERAGE_AROUND, arguments)


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
