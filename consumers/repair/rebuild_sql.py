"""What a rebuild does in SQL, a symbol and a range of ids at a time.

A window holds rows of symbol_averages, and each price in it is taken from price_points where the point is
there: as verify.py defines it. Rows get the price, currency, provider and time of their points; rows without
a point keep what they say. An average with pruned points in its window stays, unless a row of that window
changes now: then it is computed from what is there, as for a late event.
"""

import sys
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.backends.utils import CursorWrapper
from psycopg import Connection, Cursor

from consumers.averages.statements import NO_ID
from consumers.averages.windows import PREDECESSORS
from prices.models.symbol_average import WINDOW_POINTS


@dataclass(frozen=True, slots=True)
class Span:
    """A symbol's ids from `first` to `last`, both included."""

    symbol: str
    first: UUID
    last: UUID


@dataclass(frozen=True, slots=True)
class MisfiledRow:
    """A row that is stored under another symbol than its point has."""

    event_id: UUID
    stored_symbol: str
    true_symbol: str
    stored_currency: str | None

    @property
    def symbols(self) -> tuple[str, str]:
        """The symbols whose windows it is in, and belongs in."""
        return self.stored_symbol, self.true_symbol


@dataclass(frozen=True, slots=True)
class Corrected:
    """How many rows a span has now, and the ids of those that are new or changed.

    `changed` may have ids beyond the span: averages of up to four rows after it follow it. `known` are
    those of the ids asked about that lie in the span.
    """

    rows: int
    inserted: list[UUID]
    changed: list[UUID]
    known: list[UUID]


def read_symbols(cursor: Cursor | CursorWrapper) -> list[str]:
    """Return every symbol that has points or rows, by jumps through the indexes."""
    cursor.execute(_SYMBOLS)
    return sorted({symbol for (symbol,) in cursor.fetchall()})


def read_newest_id(cursor: Cursor | CursorWrapper) -> UUID | None:
    """Return the highest id of all points and rows; None where there are none."""
    cursor.execute(_NEWEST)
    (newest,) = cursor.fetchone()  # type: ignore[misc]  # has a row
    return newest  # type: ignore[no-any-return]  # a uuid


def read_end(cursor: Cursor | CursorWrapper, span: Span, *, most: int) -> UUID | None:
    """Return the id of the span's point or row number `most`, or of its last one; None where it has none."""
    cursor.execute(_END, _arguments(span) | {"most": most})
    (end,) = cursor.fetchone()  # type: ignore[misc]  # has a row
    return end  # type: ignore[no-any-return]  # a uuid


def read_misfiled(cursor: Cursor, span: Span, *, most: int) -> list[MisfiledRow]:
    """Return the first rows of the span, by stored or by true symbol, whose two symbols differ."""
    return [MisfiledRow(*row) for row in cursor.execute(_MISFILED, _arguments(span) | {"most": most})]


def move_misfiled(cursor: Cursor, row: MisfiledRow) -> list[UUID]:
    """Put the row under its true symbol, and average anew around its old place and its new one.

    Both symbols must be locked. Return the ids of the rows that changed.
    """
    event_id, old, true = row.event_id, row.stored_symbol, row.true_symbol
    if not cursor.execute(_MOVE, {"event_id": event_id, "old": old, "true": true}).rowcount:
        return []
    around = [
        correct(cursor, Span(symbol, event_id, event_id), left=[row.stored_currency], recompute=True)
        for symbol in row.symbols
    ]
    return list({event_id, *(each for corrected in around for each in corrected.changed)})


def correct(
    cursor: Cursor,
    span: Span,
    *,
    ask_about: Collection[UUID] = (),
    left: Collection[str | None] = (),
    recompute: bool = False,
) -> Corrected:
    """Add what is missing in the span and correct what differs; the symbol must be locked.

    Only rows that change are written. `left` are currencies of rows that have been in the span before, and
    `recompute` tells to take also averages with pruned points in their windows. The query is a prepared one:
    see `plan_corrections`.
    """
    arguments = _arguments(span) | {
        # As a text, also where there are none: arguments of other types would be another prepared query.
        "ask_about": f"{{{','.join(map(str, ask_about))}}}",
        "left": [currency or "" for currency in left],
        "recompute": recompute,
    }
    row = cursor.execute(_CORRECT, arguments, prepare=True).fetchone()
    return Corrected(*row)  # type: ignore[misc]  # has a row


def plan_corrections(connection: Connection) -> None:
    """Have `correct` planned for all that comes, before anything is locked for it.

    Its plan opens each partition several times: with one for each day of a year that takes longer than a
    consumer waits. What changes the tables, or PostgreSQL's statistics of them, has it planned again.
    """
    # No other statement is prepared without being asked for.
    connection.prepare_threshold = sys.maxsize
    with connection.transaction(), connection.cursor() as cursor:
        use_one_plan(cursor)
        correct(cursor, Span("", NO_ID, NO_ID))


def use_one_plan(cursor: Cursor) -> None:
    """Use, until the transaction ends, a prepared query's one plan, whatever its arguments are."""
    cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")


def _arguments(span: Span) -> dict[str, Any]:
    return {
        "symbol": span.symbol,
        "first": span.first,
        "last": span.last,
        "points": WINDOW_POINTS,
        "before": PREDECESSORS,
    }


_NEXT_SYMBOL = """(
    WITH RECURSIVE found AS (
        (SELECT symbol FROM {table} ORDER BY symbol LIMIT 1)
        UNION ALL
        SELECT (SELECT symbol FROM {table} WHERE symbol > found.symbol ORDER BY symbol LIMIT 1)
        FROM found WHERE found.symbol IS NOT NULL
    ) SELECT symbol FROM found WHERE symbol IS NOT NULL
)"""
_SYMBOLS = " UNION ".join(_NEXT_SYMBOL.format(table=table) for table in ("symbol_averages", "price_points"))

_NEWEST = """
SELECT greatest(
    (SELECT event_id FROM symbol_averages ORDER BY event_id DESC LIMIT 1),
    (SELECT id FROM price_points ORDER BY id DESC LIMIT 1)
)
"""

_IDS = """
    SELECT event_id FROM (
        (SELECT event_id FROM symbol_averages
         WHERE symbol = %(symbol)s AND event_id BETWEEN %(first)s AND %(last)s
         ORDER BY event_id LIMIT %(most)s)
        UNION
        (SELECT id FROM price_points
         WHERE symbol = %(symbol)s AND id BETWEEN %(first)s AND %(last)s ORDER BY id LIMIT %(most)s)
    ) AS both_tables ORDER BY event_id LIMIT %(most)s
"""
# Not max(): PostgreSQL has none for uuids.
_END = f"SELECT (SELECT event_id FROM ({_IDS}) AS ids ORDER BY event_id DESC LIMIT 1)"  # noqa: S608 - no outside text

# Only those without a partner under this symbol are looked up by their ids.
_MISFILED = """
WITH lone AS (
    SELECT stored.event_id, stored.currency, points.id FROM (
        SELECT event_id, currency FROM symbol_averages
        WHERE symbol = %(symbol)s AND event_id BETWEEN %(first)s AND %(last)s
    ) AS stored FULL JOIN (
        SELECT id FROM price_points WHERE symbol = %(symbol)s AND id BETWEEN %(first)s AND %(last)s
    ) AS points ON points.id = stored.event_id
    WHERE stored.event_id IS NULL OR points.id IS NULL
)
SELECT lone.event_id, %(symbol)s, points.symbol, lone.currency
FROM lone JOIN price_points AS points ON points.id = lone.event_id
UNION ALL
SELECT lone.id, stored.symbol, %(symbol)s, stored.currency
FROM lone JOIN symbol_averages AS stored ON stored.event_id = lone.id
ORDER BY 1 LIMIT %(most)s
"""

_MOVE = """
UPDATE symbol_averages AS stored SET symbol = points.symbol, tx = DEFAULT
FROM price_points AS points
WHERE stored.event_id = %(event_id)s AND stored.symbol = %(old)s
  AND points.id = %(event_id)s AND points.symbol = %(true)s
"""

# `side`: -1 for the rows before the span, whose prices are all that is needed; 1 for those after it, of
# which only averages are corrected, and only those that a change within the span makes wrong: more of their
# window may be missing yet. Windows go by currency, an empty text for none, and rows that get another one are
# missing in the windows where they have been. Times 0.2, because PostgreSQL's division rounds.
_CORRECT = """
WITH oldest AS (
    SELECT id FROM price_points ORDER BY id LIMIT 1
), stored AS (
    SELECT * FROM symbol_averages WHERE symbol = %(symbol)s AND event_id BETWEEN %(first)s AND %(last)s
), points AS (
    SELECT * FROM price_points WHERE symbol = %(symbol)s AND id BETWEEN %(first)s AND %(last)s
), currencies AS (
    SELECT coalesce(currency, '') AS name FROM stored
    UNION SELECT coalesce(currency, '') FROM points
    UNION SELECT unnest(%(left)s::text[])
), edges AS (
    SELECT edge.* FROM currencies CROSS JOIN LATERAL (
        (SELECT -1 AS side, * FROM symbol_averages
         WHERE symbol = %(symbol)s AND coalesce(currency, '') = currencies.name AND event_id < %(first)s
         ORDER BY event_id DESC LIMIT %(before)s)
        UNION ALL
        (SELECT 1, * FROM symbol_averages
         WHERE symbol = %(symbol)s AND coalesce(currency, '') = currencies.name AND event_id > %(last)s
         ORDER BY event_id LIMIT %(before)s)
    ) AS edge
), paired AS (
    SELECT 0 AS side, coalesce(stored.event_id, points.id) AS event_id,
           stored.event_id IS NOT NULL AS has_row,
           stored.price AS stored_price, stored.provider AS stored_provider,
           stored.observed_at AS stored_time, stored.currency AS stored_currency,
           stored.average, stored.window_size,
           coalesce(trim_scale(points.price), stored.price) AS price,
           coalesce(points.provider, stored.provider) AS provider,
           CASE WHEN points.id IS NULL THEN stored.observed_at ELSE points.observed_at END AS observed_at,
           CASE WHEN points.id IS NULL THEN stored.currency ELSE nullif(points.currency, '') END AS currency
    FROM stored FULL JOIN points ON points.id = stored.event_id
    WHERE stored.event_id IS NOT NULL OR points.published_at IS NOT NULL
    UNION ALL
    SELECT edges.side, edges.event_id, true,
           edges.price, edges.provider, edges.observed_at, edges.currency, edges.average, edges.window_size,
           coalesce(trim_scale(points.price), edges.price), edges.provider, edges.observed_at, edges.currency
    FROM edges LEFT JOIN price_points AS points ON points.id = edges.event_id
), windowed AS (
    SELECT *, count(*) OVER five AS points, sum(price) OVER five AS total,
           bool_or(side = 0 AND (stored_price, stored_currency) IS DISTINCT FROM (price, currency)) OVER five
           OR bool_or(stored_currency IS DISTINCT FROM currency) OVER five_stored AS has_changed,
           coalesce(first_value(event_id) OVER five < (SELECT id FROM oldest), false) AS has_pruned
    FROM paired
    WINDOW five AS (
        PARTITION BY currency ORDER BY event_id ROWS BETWEEN %(before)s PRECEDING AND CURRENT ROW
    ), five_stored AS (
        PARTITION BY has_row, stored_currency
        ORDER BY event_id ROWS BETWEEN %(before)s PRECEDING AND CURRENT ROW
    )
), judged AS MATERIALIZED (
    SELECT side, event_id, has_row, price AS true_price, provider, observed_at,
           CASE WHEN side = 0 THEN price ELSE stored_price END AS price, currency,
           CASE WHEN stays THEN window_size ELSE points END AS window_size,
           CASE WHEN stays THEN average WHEN points = %(points)s THEN trim_scale(total * 0.2) END AS average,
           stored_price, stored_provider, stored_time, stored_currency,
           window_size AS stored_size, average AS stored_average
    FROM windowed
    CROSS JOIN LATERAL (
        SELECT (has_pruned OR side = 1) AND NOT has_changed AND NOT %(recompute)s
    ) AS kept (stays)
    WHERE side >= 0
), inserted AS (
    INSERT INTO symbol_averages (
        event_id, symbol, currency, price, average, window_size, provider, observed_at
    )
    SELECT event_id, %(symbol)s, currency, price, average, window_size, provider, observed_at
    FROM judged WHERE NOT has_row ORDER BY event_id
    ON CONFLICT (event_id) DO NOTHING
    RETURNING event_id
), changed AS (
    UPDATE symbol_averages AS target
    SET price = judged.price, currency = judged.currency, provider = judged.provider,
        observed_at = judged.observed_at,
        average = judged.average, window_size = judged.window_size, tx = DEFAULT
    FROM judged
    WHERE target.event_id = judged.event_id AND target.event_id >= %(first)s AND judged.has_row
      AND (judged.price, judged.currency, judged.provider, judged.observed_at,
           judged.average, judged.window_size)
          IS DISTINCT FROM (stored_price, stored_currency, stored_provider, stored_time,
                            stored_average, stored_size)
    RETURNING target.event_id
)
SELECT (SELECT count(*) FROM judged WHERE side = 0),
       ARRAY(SELECT event_id FROM inserted),
       ARRAY(SELECT event_id FROM changed),
       ARRAY(SELECT event_id FROM judged WHERE side = 0 AND event_id = ANY(%(ask_about)s::uuid[]))
"""
