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
from uuid import UUID

from confluent_kafka import KafkaException
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from consumers.lag import messages_left
from consumers.verdicts import FACTS, VERDICTS

MAX_NAMED = 20
CATCH_UP_S = 3.0

# Of this transaction alone. A million rows are sorted in a few parts instead of dozens; compiling these
# queries takes longer than it saves.
_SETTINGS = "SET LOCAL work_mem = '64MB'; SET LOCAL jit = off"


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


@dataclass(frozen=True, slots=True)
class _Tally:
    """The rows of one symbol with one verdict; of those that failed the lowest ids."""

    verdict: Verdict
    count: int
    event_ids: list[UUID]


def verify_averages(*, symbol: str | None = None) -> Verification:
    """Compare symbol_averages with price_points, of one symbol or of all. Changes nothing."""
    consumed_until, note = _consumed_until()
    arguments = {"symbol": symbol, "consumed_until": consumed_until, "most": MAX_NAMED}
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        cursor.execute(_SETTINGS)
        cursor.execute(VERDICTS, arguments)
        tallies = [_Tally(Verdict(name), count, event_ids) for name, count, event_ids in cursor.fetchall()]
        differences = _differences(cursor, tallies)
    counts = dict.fromkeys(Verdict, 0)
    for tally in tallies:
        counts[tally.verdict] += tally.count
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


def _differences(cursor: CursorWrapper, tallies: list[_Tally]) -> list[Difference]:
    verdicts = {event_id: tally.verdict for tally in tallies for event_id in tally.event_ids}
    first = sorted(verdicts)[:MAX_NAMED]
    if not first:
        return []
    cursor.execute(FACTS, {"event_ids": first})
    return [
        Difference(
            verdict=verdicts[event_id],
            symbol=symbol,
            event_id=event_id,
            stored=Facts(symbol, *facts[:3]) if verdicts[event_id] == Verdict.WRONG else None,
            expected=Facts(*facts[3:]) if verdicts[event_id] == Verdict.WRONG else None,
        )
        for event_id, symbol, *facts in cursor.fetchall()
    ]
