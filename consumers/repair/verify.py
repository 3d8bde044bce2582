"""Are the stored averages what the stored points say? One window query for each part of a symbol's ids.

A row's window holds rows of symbol_averages, as it does for the consumer, which knows the topic and
that table alone; but each price in it is taken from price_points where the point is there. So once
all points are consumed, an average is compared with the mean over price_points.

right         the row agrees with its point and with the mean of its window
wrong         its price, symbol, currency, window_size or average differs; also where the average leaves
              out a point whose row is missing: it was computed over a hole
missing       a published point without a row, though its message is consumed
pending       a point without a row that is not published, or may not be consumed yet; when it gets its
              row, those that follow are averaged anew, and until then they are right with it or without it
foreign       a row without a point: another program wrote the event. No error, and part of the windows
              that follow, since the topic carried it; its own average is looked at as well
unverifiable  a row older than the oldest point, or with such a row in its window: points were pruned.
              (So averages have to be kept longer than points, or a symbol's first ones look wrong.)

Missing is told from pending by what the group has consumed (reading/lag.py): first the database's time is
read, then Kafka is asked; so the row of a point that was consumed by then is older than the queries that
follow. Where Kafka does not tell, a point counts as missing once its symbol has a row that is over an hour
younger than the point's publication: messages of a symbol come in order.

Each part is one query, and so one snapshot: it is exact whatever consumers write meanwhile, and holds back no
clean-up of the tables for long. Points that come after the start are not looked at.
"""

import heapq
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from psycopg import Connection, Cursor

from consumers.averages.statements import NO_ID
from consumers.averages.windows import PREDECESSORS
from consumers.reading.lag import Consumed, read_consumed
from consumers.repair.rebuild import Progress
from consumers.repair.rebuild_sql import Span, read_end, read_newest_id, read_symbols
from consumers.repair.verify_sql import VERDICTS
from prices.database.newest import LOOK_BACK, id_before
from prices.database.uuid7 import first_id_at, time_of_id
from prices.models.symbol_average import WINDOW_POINTS

MAX_NAMED = 20
MOST_ROWS = 50_000
OVERTAKEN_AFTER = timedelta(hours=1)

# Of a part's transaction alone: each part is read by an index, and compiling its query saves no time. With
# 400 partitions its planning takes 0.25 s and more, so all parts share one plan.
_SETTINGS = """
SET LOCAL jit = off; SET LOCAL enable_seqscan = off; SET LOCAL work_mem = '16MB';
SET LOCAL plan_cache_mode = force_generic_plan
"""
_NEWEST_ROW = "SELECT event_id FROM symbol_averages WHERE symbol = %s ORDER BY event_id DESC LIMIT 1"


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
    """What a row says or should say. `average` is None before the series' fifth point."""

    symbol: str
    price: Decimal
    window_size: int
    average: Decimal | None
    currency: str | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that is wrong, or a point whose row is missing: then nothing is stored or expected."""

    verdict: Verdict
    symbol: str
    event_id: UUID
    stored: Facts | None
    expected: Facts | None


@dataclass(slots=True)
class Verification:
    """How many rows got which verdict, the first 20 that failed, and what could not be told, and why."""

    counts: dict[Verdict, int] = field(default_factory=lambda: dict.fromkeys(Verdict, 0))
    differences: list[Difference] = field(default_factory=list)
    note: str | None = None

    @property
    def looked_at(self) -> int:
        """Return how many rows, and points without one, were looked at."""
        return sum(self.counts.values())

    @property
    def failed(self) -> int:
        """Return how many rows are wrong or missing."""
        return self.counts[Verdict.WRONG] + self.counts[Verdict.MISSING]


def verify_averages(
    *,
    symbol: str | None = None,
    since: datetime | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Verification:
    """Compare symbol_averages with price_points, from ids of the time `since` on. Changes nothing.

    Of one symbol or of all, one after the other.
    """
    consumed = read_consumed(now=_database_time())
    found = Verification(note=_in_words(consumed))
    with connection.cursor() as cursor:
        last = read_newest_id(cursor) or NO_ID
        symbols = read_symbols(cursor) if symbol is None else [symbol]
    first = NO_ID if since is None else first_id_at(since)
    for number, name in enumerate(symbols):
        consumed_until = consumed.until or _overtaken_until(name)
        for span in _spans(Span(name, first, last)):
            _verify(span, found, consumed_until=consumed_until)
            on_progress(Progress(number, len(symbols), found.looked_at))
    return found


def _database_time() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT now()")
        (now,) = cursor.fetchone()
    return now  # type: ignore[no-any-return]  # a timestamp


def _in_words(consumed: Consumed) -> str | None:
    if consumed.note is None:
        return None
    if consumed.until is None:
        return (
            f"{consumed.note}: a point without a row counts as missing where its symbol has a row that is"
            " over an hour younger than its publication, else as pending."
        )
    return f"{consumed.note}, and counts as pending."


def _overtaken_until(symbol: str) -> datetime | None:
    """Return up to when points of the symbol were published that later ones of it have overtaken."""
    with connection.cursor() as cursor:
        cursor.execute(_NEWEST_ROW, [symbol])
        row = cursor.fetchone()
    return None if row is None else time_of_id(row[0]) - OVERTAKEN_AFTER


def _spans(whole: Span) -> Iterator[Span]:
    """Yield the span in parts of up to MOST_ROWS rows and points, while there are any."""
    first = whole.first
    while first <= whole.last:
        with connection.cursor() as cursor:
            end = read_end(cursor, Span(whole.symbol, first, whole.last), most=MOST_ROWS)
        if end is None:
            return
        yield Span(whole.symbol, first, end)
        first = UUID(int=end.int + 1)


def _verify(span: Span, found: Verification, *, consumed_until: datetime | None) -> None:
    """Add what is found of the span."""
    failed = []
    for verdict, count, *facts in _judge(span, consumed_until=consumed_until):
        if count is None:
            failed.append(_difference(Verdict(verdict), span.symbol, *facts))
        else:
            found.counts[Verdict(verdict)] += count
    found.differences = heapq.nsmallest(
        MAX_NAMED, [*found.differences, *failed], key=lambda difference: difference.event_id
    )


def _judge(span: Span, *, consumed_until: datetime | None) -> list[tuple[Any, ...]]:
    """Return what the query gives; it looks back a month, and further only where that is too short."""
    for oldest in (id_before(span.first, LOOK_BACK[-1]), NO_ID):
        rows = _query(span, oldest=oldest, consumed_until=consumed_until)
        short = sum(count for verdict, count, *_facts in rows if verdict == "short")
        if not short or oldest == NO_ID:
            break
    return [row for row in rows if row[0] != "short"]


def _query(span: Span, *, oldest: UUID, consumed_until: datetime | None) -> list[tuple[Any, ...]]:
    arguments: dict[str, Any] = {
        "symbol": span.symbol,
        "first": span.first,
        "last": span.last,
        "consumed_until": consumed_until,
        "points": WINDOW_POINTS,
        "before": PREDECESSORS,
        "most": MAX_NAMED,
        "oldest": oldest,
    }
    with transaction.atomic(), _preparing() as cursor:
        cursor.execute(_SETTINGS)
        return cursor.execute(VERDICTS, arguments, prepare=True).fetchall()


@contextmanager
def _preparing() -> Iterator[Cursor]:
    """Yield a cursor of psycopg's own on Django's connection, for queries that are prepared."""
    connection.ensure_connection()
    own: Connection = connection.connection
    threshold, own.prepare_threshold = own.prepare_threshold, sys.maxsize
    try:
        with Cursor(own) as cursor:
            yield cursor
    finally:
        own.prepare_threshold = threshold


def _difference(verdict: Verdict, symbol: str, event_id: UUID, *facts: Any) -> Difference:
    if verdict is Verdict.MISSING:
        return Difference(verdict, symbol, event_id, None, None)
    return Difference(verdict, symbol, event_id, Facts(symbol, *facts[:4]), Facts(*facts[4:]))
