"""Whether the stored averages are what the stored points say: one window query at one snapshot.

A row's window holds rows of symbol_averages, as it does for the consumer, which knows the topic and
that table alone; but each price in it is taken from price_points where the point is there. So once
all points are consumed, an average is compared with the mean over price_points. While a point has no
row, the rows after it may be averaged without it or, where its row was lost later, with it.

right         the row agrees with its point and with the mean of its window
wrong         its price, symbol, window_size or average differs
missing       a published point without a row, though all that was published by then is consumed
pending       a point without a row that is not published, or may not be consumed yet; when it gets its
              row, those that follow are averaged anew
foreign       a row without a point: another program wrote the event. No error, and part of the windows
              that follow, since the topic carried it; its own average is looked at as well
unverifiable  a row older than the oldest point, or with such a row in its window: points were pruned.
              (So averages have to be kept longer than points, or a symbol's first ones look wrong.)

Missing is told from pending by the consumer group's offsets: first the database's time is read, then
the end of each partition, and then the group is waited for, up to 3 seconds. Once it has committed
these offsets, every point that was published before that time was consumed, and its row is older than
the snapshot that follows. Otherwise, or where Kafka does not answer, all points without a row are
pending, and a note says so.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from confluent_kafka import KafkaException
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from consumers.lag import messages_left

MAX_NAMED = 20
CATCH_UP_S = 3.0


class Verdict(StrEnum):
    """What can be said of a row, or of a point without one."""

    RIGHT = "right"
    WRONG = "wrong"
    MISSING = "missing"
    PENDING = "pending"
    FOREIGN = "foreign"
    UNVERIFIABLE = "unverifiable"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a row says or should say. `average` is None before the symbol's fifth point."""

    symbol: str
    price: Decimal
    window_size: int
    average: Decimal | None


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that is wrong, or a point whose row is missing: then nothing is stored or expected."""

    verdict: Verdict
    symbol: str
    event_id: UUID
    stored: Facts | None
    expected: Facts | None


@dataclass(frozen=True, slots=True)
class Verification:
    """How many rows got which verdict, the first 20 that failed, and what could not be told, and why."""

    counts: dict[Verdict, int]
    differences: list[Difference]
    note: str | None

    @property
    def failed(self) -> int:
        """How many rows are wrong or missing."""
        return self.counts[Verdict.WRONG] + self.counts[Verdict.MISSING]


def verify_averages(*, symbol: str | None = None) -> Verification:
    """Compare symbol_averages with price_points, of one symbol or of all. Changes nothing."""
    consumed_until, note = _consumed_until()
    arguments = {"symbol": symbol, "consumed_until": consumed_until}
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        cursor.execute(_COUNT, arguments)
        counts = dict.fromkeys(Verdict, 0) | {Verdict(name): count for name, count in cursor.fetchall()}
        has_failed = counts[Verdict.WRONG] or counts[Verdict.MISSING]
        differences = _differences(cursor, arguments) if has_failed else []
    return Verification(counts, differences, note)


def _consumed_until() -> tuple[datetime | None, str | None]:
    """Give the time up to which all that was published is consumed; None, and why, where none is known."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT now()")
        (now,) = cursor.fetchone()
    try:
        left = messages_left(wait_s=CATCH_UP_S)
    except KafkaException as error:
        reason = error.args[0].str()
        return None, f"Kafka does not tell what is consumed ({reason}): missing points count as pending."
    if left:
        return None, f"{left} messages are still to be consumed: missing points count as pending."
    return now, None


def _differences(cursor: CursorWrapper, arguments: dict[str, Any]) -> list[Difference]:
    cursor.execute(_NAME, arguments | {"most": MAX_NAMED})
    return [
        Difference(
            verdict=Verdict(verdict),
            symbol=symbol,
            event_id=event_id,
            stored=Facts(symbol, *facts[:3]) if verdict == Verdict.WRONG else None,
            expected=Facts(*facts[3:]) if verdict == Verdict.WRONG else None,
        )
        for verdict, symbol, event_id, *facts in cursor.fetchall()
    ]


_JUDGED = """
WITH oldest AS (
    SELECT id FROM price_points ORDER BY id LIMIT 1
), rows AS (
    SELECT * FROM symbol_averages WHERE %(symbol)s::text IS NULL OR symbol = %(symbol)s
), points AS (
    SELECT * FROM price_points WHERE %(symbol)s::text IS NULL OR symbol = %(symbol)s
), paired AS (
    SELECT coalesce(rows.event_id, points.id) AS event_id,
           coalesce(rows.symbol, points.symbol) AS symbol,
           rows.event_id IS NOT NULL AS has_row,
           rows.price AS stored_price, rows.window_size, rows.average,
           points.id IS NOT NULL AS has_point,
           coalesce(points.symbol, rows.symbol) AS true_symbol,
           coalesce(points.price, rows.price) AS price,
           points.published_at,
           points.id IS NULL AND rows.event_id < oldest.id AS is_pruned
    FROM rows FULL JOIN points ON points.id = rows.event_id LEFT JOIN oldest ON true
), windowed AS (
    SELECT *,
           count(*) OVER by_rows AS points,
           CASE WHEN count(*) OVER by_rows = 5 THEN trim_scale(sum(price) OVER by_rows * 0.2) END AS mean,
           count(*) OVER by_points AS all_points,
           CASE WHEN count(*) OVER by_points = 5 THEN sum(price) OVER by_points * 0.2 END AS mean_of_all,
           bool_or(is_pruned) OVER by_rows AS has_pruned
    FROM paired
    WINDOW by_rows AS (
        PARTITION BY symbol, has_row ORDER BY event_id ROWS BETWEEN 4 PRECEDING AND CURRENT ROW
    ), by_points AS (
        PARTITION BY symbol ORDER BY event_id ROWS BETWEEN 4 PRECEDING AND CURRENT ROW
    )
), judged AS (
    SELECT *, CASE
        WHEN NOT has_row AND published_at <= %(consumed_until)s THEN 'missing'
        WHEN NOT has_row THEN 'pending'
        WHEN has_pruned THEN 'unverifiable'
        WHEN (symbol, stored_price) IS DISTINCT FROM (true_symbol, price) THEN 'wrong'
        WHEN (window_size, average) IS DISTINCT FROM (points, mean)
            AND (window_size, average) IS DISTINCT FROM (all_points, mean_of_all) THEN 'wrong'
        WHEN NOT has_point THEN 'foreign'
        ELSE 'right' END AS verdict
    FROM windowed
)
"""

_COUNT = f"{_JUDGED} SELECT verdict, count(*) FROM judged GROUP BY verdict"  # noqa: S608 - no outside text

_NAME = f"""{_JUDGED}
SELECT verdict, symbol, event_id, stored_price, window_size, average, true_symbol, price, points, mean
FROM judged WHERE verdict IN ('wrong', 'missing') ORDER BY event_id LIMIT %(most)s
"""  # noqa: S608 - no outside text
