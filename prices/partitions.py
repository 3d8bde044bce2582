"""Partitions of the tables that grow: one a day, made ahead, by the time within the row's id."""

from datetime import UTC, date, datetime, timedelta
from typing import LiteralString
from uuid import UUID

from django.db import connection, transaction
from psycopg.sql import SQL, Identifier, Literal

from prices.ids import first_id_at

DAYS_AHEAD = 7
# table -> the name of its id column
PARTITIONED_TABLES = {
    "raw_market_data": "id",
    "price_points": "id",
    "poll_runs": "id",
    "symbol_averages": "event_id",
}


def make_partitions(today: date) -> list[str]:
    """Make the partitions of `today` and the next seven days that do not exist yet; give their names.

    Safe to run at any time and twice at once. Rows of such a day that are already in the default
    partition (partitions were not made in time) move into the new one in the same transaction.
    """
    made = []
    for table, id_column in PARTITIONED_TABLES.items():
        for days in range(DAYS_AHEAD + 1):
            day = today + timedelta(days=days)
            if _make_partition(table, id_column, day):
                made.append(_partition_name(table, day))
    return made


def _first_id_of(day: date) -> UUID:
    return first_id_at(datetime(day.year, day.month, day.day, tzinfo=UTC))


def _partition_name(table: str, day: date) -> str:
    return f"{table}_{day:%Y%m%d}"


def _make_partition(table: str, id_column: str, day: date) -> bool:
    name = _partition_name(table, day)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('partitions'))")
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [name])
        if cursor.fetchone() == (True,):
            return False
        # Writers wait while the partition is attached: better none today than a long queue of them.
        cursor.execute("SET LOCAL lock_timeout = '5s'")
        for statement in _STATEMENTS:
            cursor.execute(
                SQL(statement).format(
                    table=Identifier(table),
                    default=Identifier(f"{table}_default"),
                    id=Identifier(id_column),
                    name=Identifier(name),
                    first=Literal(str(_first_id_of(day))),
                    end=Literal(str(_first_id_of(day + timedelta(days=1)))),
                )
            )
    return True


# Writers wait until the partition is there: a row that was on its way to the default partition would be
# refused there, and one that came between MOVE and ATTACH would fail the latter.
_STATEMENTS: tuple[LiteralString, ...] = (
    "LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE",
    "LOCK TABLE {default} IN ACCESS EXCLUSIVE MODE",
    "CREATE TABLE {name} (LIKE {table} INCLUDING ALL)",
    "WITH moved AS (DELETE FROM {default} WHERE {id} >= {first} AND {id} < {end} RETURNING *)"
    " INSERT INTO {name} SELECT * FROM moved",
    "ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({first}) TO ({end})",
)
