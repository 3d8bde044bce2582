"""Partitions of the tables that grow: one a day, made ahead, by the time within the row's id.

A row of a day without a partition goes to the table's default partition: nothing is refused, but it does not
go with its day, and queries of that time look there as well.
"""

from collections.abc import Iterator
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
# table -> the name of its id column
PARTITIONED_TABLES = {
    "raw_market_data": "id",
    "price_points": "id",
    "poll_runs": "id",
    "symbol_averages": "event_id",
}

# Whoever writes to the table waits for as long as its lock is waited for, and then held.
LOCK_TIMEOUT = "300ms"
LOCKED_FOR_AT_MOST = "450ms"


def make_partitions(today: date) -> list[str]:
    """Make the partitions of `today` and the next seven days that do not exist yet; return their names.

    Safe to run at any time and twice at once. Each table goes by itself: where one cannot be locked, or fails
    otherwise, that is logged, and its other days are left for the next time. Rows of such a day that are
    already in the default partition (partitions were not made in time) move into the new one in the same
    transaction, unless they are too many for half a second: then they stay where they are.
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
    names = [
        _partition_name(table, today + timedelta(days=days))
        for table in PARTITIONED_TABLES
        for days in range(DAYS_NEEDED + 1)
    ]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name FROM unnest(%s::text[]) AS needed (name) WHERE to_regclass(name) IS NULL", [names]
        )
        return [name for (name,) in cursor.fetchall()]


def spans_in_default() -> dict[str, tuple[date, date]]:
    """Return for each table whose default partition has rows the first and last day that they are of."""
    spans = {}
    with connection.cursor() as cursor:
        for table, id_column in PARTITIONED_TABLES.items():
            days = []
            for order in (SQL("ASC"), SQL("DESC")):
                cursor.execute(
                    SQL("SELECT {} FROM {} ORDER BY 1 {} LIMIT 1").format(
                        Identifier(id_column), Identifier(f"{table}_default"), order
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


def _partition_name(table: str, day: date) -> str:
    return f"{table}_{day:%Y%m%d}"


def _make_of_table(table: str, today: date) -> Iterator[str]:
    for days in range(DAYS_AHEAD + 1):
        day = today + timedelta(days=days)
        if _make_partition(table, day):
            yield _partition_name(table, day)


def _make_partition(table: str, day: date) -> bool:
    name = _partition_name(table, day)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('partitions'))")
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [name])
        if cursor.fetchone() == (True,):
            return False
        for statement in (_CREATE, f"SET LOCAL statement_timeout = '{LOCKED_FOR_AT_MOST}'", _ATTACH):
            cursor.execute(
                SQL(statement).format(
                    table=Identifier(table),
                    default=Identifier(f"{table}_default"),
                    id=Identifier(PARTITIONED_TABLES[table]),
                    name=Identifier(name),
                    first=Literal(str(_first_id_of(day))),
                    end=Literal(str(_first_id_of(day + timedelta(days=1)))),
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
