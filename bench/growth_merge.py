"""How long it takes until partitions of days are months, and how long others wait meanwhile."""

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import date, timedelta
from random import Random

from django.db import connection
from django.utils import timezone

from prices.database.uuid7 import first_id_at
from prices.maintenance.merging import merge_days
from prices.maintenance.partitions import PARTITIONED_TABLES, Span, make_partition

ONE_DAY = timedelta(days=1)
# A row of the past changes, as by a late event; and a new one comes, as with each batch.
_CHANGE = """
UPDATE symbol_averages SET average = average WHERE event_id = (
    SELECT event_id FROM symbol_averages WHERE event_id >= %(first)s AND event_id < %(end)s
    ORDER BY event_id LIMIT 1
) AND event_id >= %(first)s AND event_id < %(end)s
"""
_ADD = """
INSERT INTO symbol_averages (event_id, symbol, price, window_size, provider)
VALUES (uuidv7(), 'SIM-WRITER', 1, 1, 'simulated')
"""


@dataclass(frozen=True)
class Merged:
    """How many months were merged, in how long, and how long a writer waited for one statement at most."""

    months: int
    seconds: float
    longest_wait_s: float

    def __str__(self) -> str:
        return (
            f"{self.months} months merged in {self.seconds:.0f} s; a writer waited for"
            f" {self.longest_wait_s:.2f} s at most"
        )


def make_days(first: date, *, before: date) -> None:
    """Make the partitions that all tables had before: one of each of these days."""
    day = first
    while day < before:
        for table, partitioning in PARTITIONED_TABLES.items():
            # The month of today has its partition already.
            if not partitioning.by_month or day < before.replace(day=1):
                make_partition(Span(table, day, day + ONE_DAY))
        day += ONE_DAY


def merge_all(*, days: int) -> Merged:
    """Merge all months that are over, month by month as `maintenance` does, beside one who writes."""
    waits: list[float] = []
    is_over = threading.Event()
    writer = threading.Thread(target=_write, args=(days, waits.append, is_over.is_set))
    writer.start()
    began, months = time.monotonic(), 0
    try:
        while merged := merge_days(timezone.now().date()):
            months += len(merged)
    finally:
        is_over.set()
        writer.join()
    return Merged(months, time.monotonic() - began, max(waits))


def _write(days: int, note: Callable[[float], None], is_over: Callable[[], bool]) -> None:
    chance, now = Random(3), timezone.now()
    with closing(connection):
        while not is_over():
            moment = now - timedelta(minutes=chance.randrange(days * 1440))
            bounds = {"first": first_id_at(moment), "end": first_id_at(moment + timedelta(hours=1))}
            for statement in (_CHANGE, _ADD):
                began = time.monotonic()
                with connection.cursor() as cursor:
                    cursor.execute(statement, bounds if statement is _CHANGE else None)
                note(time.monotonic() - began)
            time.sleep(0.01)
