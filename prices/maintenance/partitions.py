"""Partitions of the tables that grow, made ahead, by the time within the row's id: of a day, or of a month.

Raw answers and runs go after days or weeks, a day at a time. Points and averages stay for years, and a query
that looks back over all of them opens each partition: so they have one a month.

A row without a partition of its time goes to the table's default partition: nothing is refused, but it does
not go with its time, and queries of that time look there as well.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import LiteralString
from uuid import UUID

import structlog
from django.db import Error, connection, transaction
from psycopg.sql import SQL, Identifier, Literal

from prices.database.uuid7 import EPOCH, first_id_at

log = structlog.get_logger(__name__)

DAYS_AHEAD = 7
# Fewer than these days ahead are a problem: somebody should look why none is made.
DAYS_NEEDED = 2


@dataclass(frozen=True, slots=True)
class Partitioning:
    """The name of a table's id column, and whether its partitions are of months, else of days."""

    id_column: str
    by_month: bool


PARTITIONED_TABLES = {
    "raw_market_data": Partitioning("id", by_month=False),
    "price_points": Partitioning("id", by_month=True),
    "poll_runs": Partitioning("id", by_month=False),
    "symbol_averages": Partitioning("event_id", by_month=True),
}

# Whoever writes to the table waits for as long as its lock is waited for, and then held.
LOCK_TIMEOUT = "300ms"
LOCKED_FOR_AT_MOST = "450ms"


@dataclass(frozen=True, slots=True)
class Span:
    """The days from `first` on, before `end`, that a partition is of."""

    table: str
    first: date
    end: date

    @property
    def name(self) -> str:
        """The partition's name: price_points_202611, poll_runs_20261130."""
        is_day = self.end - self.first == timedelta(days=1)
        return f"{self.table}_{self.first:{'%Y%m%d' if is_day else '%Y%m'}}"

    @property
    def ids(self) -> tuple[UUID, UUID]:
        """The lowest id of a row in it, and the lowest of one after it."""
        return _first_id_of(self.first), _first_id_of(self.end)


def month_of(table: str, day: date) -> Span:
    """Return the month that a day lies in."""
    first = day.replace(day=1)
    return Span(table, first, (first + timedelta(days=31)).replace(day=1))


def make_partitions(today: date) -> list[str]:
    """Make the partitions of `today` and the next seven days that do not exist yet; return their names.

    Safe to run at any time and twice at once. Each table goes by itself: where one cannot be locked, or fails
    otherwise, that is logged, and its other partitions are left for the next time. Rows of that time that
    are already in the default partition (partitions were not made in time) move into the new one in the
    same transaction, unless they are too many for half a second: then they stay where they are.
    """
    made: list[str] = []
    for table in PARTITIONED_TABLES:
        try:
            made.extend(_make_of_table(table, today))
        except Error as error:
            log.warning("partitions.not_made", table=table, reason=str(error).partition("\n")[0])
    return made


def missing_partitions(today: date) -> list[str]:
    """Return which of the partitions are missing that today and the next two days need."""
    return [
        span.name
        for table in PARTITIONED_TABLES
        for span in _spans(table, today, days=DAYS_NEEDED)
        if not _exists(span.name)
    ]


def spans_in_default() -> dict[str, tuple[date, date]]:
    """Return for each table whose default partition has rows the first and last day that they are of."""
    spans = {}
    with connection.cursor() as cursor:
        for table, partitioning in PARTITIONED_TABLES.items():
            days = []
            for order in (SQL("ASC"), SQL("DESC")):
                cursor.execute(
                    SQL("SELECT {} FROM {} ORDER BY 1 {} LIMIT 1").format(
                        Identifier(partitioning.id_column), Identifier(f"{table}_default"), order
                    )
                )
                days += [_day_of(row_id) for (row_id,) in cursor.fetchall()]
            if days:
                spans[table] = (days[0], days[-1])
    return spans


def _day_of(row_id: UUID) -> date:
    return (EPOCH + timedelta(milliseconds=row_id.int >> 80)).date()


def _first_id_of(day: date) -> UUID:
    return first_id_at(datetime(day.year, day.month, day.day, tzinfo=UTC))


def _spans(table: str, today: date, *, days: int) -> list[Span]:
    """Return the partitions that today and so many days after it need.

    A month goes by days where a day of it has a partition (all had, before), and where rows of it lie in the
    default partition: a day's are moved faster. Once it is over, merging.py makes one of them.
    """
    needed = [today + timedelta(days=number) for number in range(days + 1)]
    by_day = {
        day.replace(day=1)
        for day in needed
        if not PARTITIONED_TABLES[table].by_month or _goes_by_days(month_of(table, day))
    }
    spans = [
        Span(table, day, day + timedelta(days=1)) if day.replace(day=1) in by_day else month_of(table, day)
        for day in needed
    ]
    return list(dict.fromkeys(spans))


def _goes_by_days(month: Span) -> bool:
    if days_of(month):
        return True
    return not _exists(month.name) and rows_in_default(month, most=1) > 0


def days_of(month: Span) -> list[str]:
    """Return the partitions that days of the month have."""
    return [name for name in days_with_partitions(month.table) if name.startswith(month.name)]


def days_with_partitions(table: str) -> list[str]:
    """Return the names of the table's partitions that are of a day, the earliest first."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT child.relname FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid"
            " WHERE inhparent = %s::regclass AND child.relname ~ %s ORDER BY 1",
            [table, f"^{table}_[0-9]{{8}}$"],
        )
        return [name for (name,) in cursor.fetchall()]


def day_of(name: str) -> date:
    """Return the day that the partition of this name is of."""
    return date.fromisoformat(name[-8:])


def rows_in_default(span: Span, *, most: int) -> int:
    """Return how many rows of the span lie in the table's default partition, counted up to `most`."""
    statement = SQL("SELECT count(*) FROM (SELECT FROM {} WHERE {id} >= %s AND {id} < %s LIMIT %s) AS found")
    names = {"id": Identifier(PARTITIONED_TABLES[span.table].id_column)}
    with connection.cursor() as cursor:
        cursor.execute(statement.format(Identifier(f"{span.table}_default"), **names), [*span.ids, most])
        (count,) = cursor.fetchone()
    return int(count)


def _exists(name: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [name])
        return bool(cursor.fetchone() == (True,))


def _make_of_table(table: str, today: date) -> Iterator[str]:
    for span in _spans(table, today, days=DAYS_AHEAD):
        if make_partition(span):
            yield span.name


def make_partition(span: Span) -> bool:
    """Make one partition; return False where it is there already. Raises Error where it cannot be locked."""
    first, end = span.ids
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('partitions'))")
        if _exists(span.name):
            return False
        for statement in (_CREATE, f"SET LOCAL statement_timeout = '{LOCKED_FOR_AT_MOST}'", _ATTACH):
            cursor.execute(
                SQL(statement).format(
                    table=Identifier(span.table),
                    default=Identifier(f"{span.table}_default"),
                    id=Identifier(PARTITIONED_TABLES[span.table].id_column),
                    name=Identifier(span.name),
                    first=Literal(str(first)),
                    end=Literal(str(end)),
                )
            )
    return True


_CREATE: LiteralString = "CREATE TABLE {name} (LIKE {table} INCLUDING ALL)"
# One statement, so that one time-out bounds all that writers wait for. They wait until the partition is
# there: a row that was on its way to the default partition would be refused there, and one that came between
# the move and the end would fail the latter.
_ATTACH: LiteralString = """
DO $$ BEGIN
    LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE;
    LOCK TABLE {default} IN ACCESS EXCLUSIVE MODE;
    WITH moved AS (DELETE FROM {default} WHERE {id} >= {first} AND {id} < {end} RETURNING *)
    INSERT INTO {name} SELECT * FROM moved;
    ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({first}) TO ({end});
END $$
"""
