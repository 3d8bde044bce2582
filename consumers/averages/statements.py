"""What the store does in SQL. Each function works inside the transaction of the cursor it is given."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import chain, groupby
from operator import itemgetter
from typing import Any
from uuid import UUID
from zlib import crc32

import numpy as np
from psycopg import Cursor

from consumers.averages.batches import Written
from consumers.averages.columns import (
    FRACTION,
    NO_POINTS,
    ONE,
    WHOLE,
    Events,
    Integers,
    Series,
    decimal_of,
    halves_of_id,
    id_of,
    moment_of,
)
from consumers.averages.rows import COLUMNS
from consumers.averages.windows import MOST_POINTS, Batch, CachedWindow, Halves, Lookback
from prices.database.newest import LOOK_BACK, id_before
from prices.models.symbol_average import WINDOW_POINTS

# PostgreSQL has room for a few thousand locks in all, so symbols share keys: by the hash by which the
# outbox's producer chooses partitions, and so many that symbols of two partitions share none where the
# number of partitions divides this one. Else consumers of any two partitions would wait for each other.
LOCK_KEYS = 240

NO_ID = UUID(int=0)


_COPY = f"COPY symbol_averages ({', '.join(COLUMNS)}) FROM STDIN (FORMAT BINARY)"

_LOCK = "SELECT pg_advisory_xact_lock(hashtext('symbol_averages'), key) FROM unnest(%s::int[]) AS keys (key)"

# The second bound is the first, as a constant: the planner leaves older partitions out. Here and below, an
# empty text is no currency, as in the index.
_STALE_SERIES = """
SELECT symbol, nullif(currency, '')
FROM unnest(%(symbols)s::text[], %(currencies)s::text[], %(oldest)s::uuid[], %(counts)s::int[])
     AS held (symbol, currency, oldest, points)
WHERE points <> (
    SELECT count(*) FROM symbol_averages AS stored
    WHERE stored.symbol = held.symbol AND coalesce(stored.currency, '') = held.currency
      AND stored.event_id >= held.oldest AND stored.event_id >= %(oldest_of_all)s
)
"""

_LAST_POINTS = """
SELECT batch.number, last.event_id, trunc(last.price)::int8,
       ((last.price - trunc(last.price)) * %(one)s)::int8
FROM unnest(%(symbols)s::text[], %(currencies)s::text[]) WITH ORDINALITY AS batch (symbol, currency, number)
CROSS JOIN LATERAL (
    SELECT event_id, price FROM symbol_averages AS stored
    WHERE stored.symbol = batch.symbol AND coalesce(stored.currency, '') = batch.currency
      AND stored.event_id >= %(since)s
    ORDER BY event_id DESC LIMIT %(most)s
) AS last ORDER BY batch.number, last.event_id
"""

_UPDATE_AVERAGES = """
UPDATE symbol_averages AS stored
SET average = changed.average, window_size = changed.window_size, tx = DEFAULT
FROM unnest(%(event_ids)s::uuid[], %(averages)s::numeric[], %(sizes)s::int2[])
     AS changed (event_id, average, window_size)
WHERE stored.event_id = changed.event_id AND stored.event_id >= %(lowest)s
  AND (stored.average, stored.window_size) IS DISTINCT FROM (changed.average, changed.window_size)
RETURNING stored.event_id
"""

# Their averages follow in the same transaction; until then they pass for a series' first point.
_INSERT_LATE = """
INSERT INTO symbol_averages (event_id, symbol, currency, price, average, window_size, provider, observed_at)
SELECT event_id, symbol, nullif(currency, ''), price, NULL, 1, provider, observed_at
FROM unnest(%(event_ids)s::uuid[], %(symbols)s::text[], %(currencies)s::text[], %(prices)s::numeric[],
            %(providers)s::text[], %(observed)s::timestamptz[])
     AS late (event_id, symbol, currency, price, provider, observed_at)
ON CONFLICT (event_id) DO NOTHING
RETURNING event_id, symbol, coalesce(currency, '')
"""

# A late row changes the windows that it is in: its own and those of its next four successors. Times
# 0.2, because PostgreSQL's division rounds. The row gets a new tx, its version.
_AVERAGE_AROUND = """
WITH touched AS (
    SELECT DISTINCT following.event_id, late.symbol, late.currency
    FROM unnest(%(event_ids)s::uuid[], %(symbols)s::text[], %(currencies)s::text[])
         AS late (event_id, symbol, currency)
    CROSS JOIN LATERAL (
        SELECT event_id FROM symbol_averages AS stored
        WHERE stored.symbol = late.symbol AND coalesce(stored.currency, '') = late.currency
          AND stored.event_id >= late.event_id
        ORDER BY event_id LIMIT %(points)s
    ) AS following
), averaged AS (
    SELECT touched.event_id, count(*) AS size,
           CASE WHEN count(*) = %(points)s THEN trim_scale(sum(five.price) * 0.2) END AS average
    FROM touched CROSS JOIN LATERAL (
        SELECT price FROM symbol_averages AS stored
        WHERE stored.symbol = touched.symbol AND coalesce(stored.currency, '') = touched.currency
          AND stored.event_id <= touched.event_id
        ORDER BY event_id DESC LIMIT %(points)s
    ) AS five GROUP BY touched.event_id
)
UPDATE symbol_averages AS stored
SET average = averaged.average, window_size = averaged.size, tx = DEFAULT
FROM averaged
WHERE stored.event_id = averaged.event_id
  AND (stored.average, stored.window_size) IS DISTINCT FROM (averaged.average, averaged.size)
RETURNING stored.event_id
"""


def lock_symbols(cursor: Cursor, symbols: Collection[str]) -> None:
    """Wait until no other transaction writes rows of these symbols, and keep others out until the end.

    A statement of its own: what is read after it sees all that the others have committed.
    """
    # In one order for all: else two transactions could wait for each other.
    cursor.execute(_LOCK, [sorted({lock_key(symbol) for symbol in symbols})])


def lock_key(symbol: str) -> int:
    """Return the number of the lock that guards a symbol's rows."""
    return crc32(symbol.encode()) % LOCK_KEYS


def lock_and_look(
    cursor: Cursor, symbols: Collection[str], held: Mapping[Series, Integers]
) -> tuple[int, set[Series]]:
    """Lock the symbols, and look whether points that are held are all that is stored from the oldest on.

    `held` has points of some of their series, by id. Returns the number that each rebuild raises (what was
    read before it may have changed), and the series that have more points, or fewer. One round trip.
    """
    oldest = [id_of(points[0]) for points in held.values()]
    with cursor.connection.pipeline():
        lock_symbols(cursor, symbols)
        epoch = cursor.connection.execute("SELECT last_value FROM averages_epoch")
        arguments = _columns_of(held) | {
            "oldest": oldest,
            "counts": list(map(len, held.values())),
            "oldest_of_all": min(oldest, default=NO_ID),
        }
        stale = cursor.connection.execute(_STALE_SERIES, arguments)
    (number,) = epoch.fetchone()  # type: ignore[misc]  # has a row
    return int(number), set(stale)


def _columns_of(series: Collection[Series]) -> dict[str, Any]:
    """Return symbols and currencies; an empty text for none."""
    return {
        "symbols": [symbol for symbol, _currency in series],
        "currencies": [currency or "" for _symbol, currency in series],
    }


def read_lookbacks(cursor: Cursor, batch: Batch, *, but: Collection[Series]) -> dict[Series, Lookback]:
    """Read what the batch needs of its series, but of these; they must be locked.

    As far back as events in order need it, and further for those that are not. Series are missing that have
    an event below all that is looked at.
    """
    lookbacks = {}
    left = {series: lowest for series, lowest in batch.lowest().items() if series not in but}
    for most in (WINDOW_POINTS, MOST_POINTS):
        for series, window in _read_windows(cursor, left, most=most).items():
            start = window.lookback_start(left[series])
            if start is not None:
                lookbacks[series] = Lookback(window, start)
                del left[series]
    return lookbacks


def _read_windows(
    cursor: Cursor, lowest: Mapping[Series, Halves], *, most: int
) -> dict[Series, CachedWindow]:
    if not lowest:
        return {}
    near = id_of(np.array(min(lowest.values())))
    points = read_last_points(cursor, list(lowest), near=near, most=most)
    return {
        series: CachedWindow(found, is_complete=len(found) < most)
        for series in lowest
        for found in [points.get(series, NO_POINTS)]
    }


def read_last_points(
    cursor: Cursor, series: Collection[Series], *, near: UUID, most: int
) -> dict[Series, Integers]:
    """Return up to `most` of each series' last stored points; those without any are left out.

    Looks first at what is at most a day older than `near`, then a month: older partitions are opened for
    those series alone that have fewer points there.
    """
    points: dict[Series, Integers] = {}
    short = list(series)
    for since in (*(id_before(near, step) for step in LOOK_BACK), NO_ID):
        points |= _points_since(cursor, short, since, most=most)
        short = [each for each in short if len(points.get(each, ())) < most]
    return points


def _points_since(
    cursor: Cursor, series: Collection[Series], since: UUID, *, most: int
) -> dict[Series, Integers]:
    if not series:
        return {}
    asked = list(series)
    rows = cursor.execute(
        _LAST_POINTS, _columns_of(asked) | {"since": since, "most": most, "one": ONE}
    ).fetchall()
    return {
        asked[number - 1]: np.array(
            [(*halves_of_id(event_id), whole, part) for _place, event_id, whole, part in found]
        )
        for number, found in groupby(rows, itemgetter(0))
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
) -> list[UUID]:
    """Give stored rows other averages; return the ids of those that change, and have a new tx."""
    if not event_ids:
        return []
    arguments = {"event_ids": event_ids, "averages": averages, "sizes": sizes, "lowest": min(event_ids)}
    cursor.execute(_UPDATE_AVERAGES, arguments)
    return [event_id for (event_id,) in cursor.fetchall()]


def insert_late(cursor: Cursor, batch: Batch, events: Events) -> Written:
    """Add the batch's events that are not stored yet, and average their rows and those that follow anew."""
    if not len(batch.points):
        return Written()
    counts = np.diff(batch.bounds).tolist()
    series = [each for each, count in zip(batch.series, counts, strict=True) for _ in range(count)]
    arrival = batch.arrival.tolist()
    cursor.execute(
        _INSERT_LATE,
        _columns_of(series)
        | {
            "event_ids": [id_of(point) for point in batch.points],
            "prices": [decimal_of(point[WHOLE], point[FRACTION]) for point in batch.points],
            "providers": [events.sources[code] for code in events.source_codes[arrival]],
            "observed": [moment_of(events.observed[index]) for index in arrival],
        },
    )
    rows = cursor.fetchall()
    if not rows:
        return Written()
    added = [event_id for event_id, *_series in rows]
    arguments = _columns_of([(symbol, currency) for _event_id, symbol, currency in rows])
    cursor.execute(_AVERAGE_AROUND, arguments | {"event_ids": added, "points": WINDOW_POINTS})
    changed = {event_id for (event_id,) in cursor.fetchall()}
    return Written(added=added, changed=sorted(changed.difference(added)))
