"""Days that become one month: points and averages had a partition for each day before.

Everything goes on meanwhile. A month's table is filled from its days in small transactions, and triggers
write to it what is written to the days; then it takes their place, under a lock of less than half a second.
What is broken off is begun anew the next time.
"""

import time
from datetime import date, timedelta
from typing import LiteralString
from uuid import UUID

import structlog
from django.db import Error, OperationalError, connection, transaction
from psycopg import errors
from psycopg.sql import SQL, Composable, Identifier, Literal

from prices.database.advisory_locks import try_advisory_lock
from prices.maintenance.partitions import (
    LOCK_TIMEOUT,
    LOCKED_FOR_AT_MOST,
    PARTITIONED_TABLES,
    Span,
    day_of,
    days_of,
    days_with_partitions,
    month_of,
    rows_in_default,
)

log = structlog.get_logger(__name__)

MERGE_LOCK = "merge partitions"
# Whoever writes to the day waits for as long as these take: some 0.1 s.
ROWS_AT_ONCE = 5_000
# So many rows of a month go out of the default partition within the swap; with more it stays by days.
MAX_MOVED = 10_000
MOST_TRIES, RETRY_S = 20, 0.5
# Most of what is late for its day has come by then.
ENDED_FOR = timedelta(days=2)


def merge_days(today: date) -> list[str]:
    """Make one partition of the days of a past month, of each table that has such a month; return the names.

    A month whose days cannot be locked in time, or that fails otherwise, is logged and left for the next
    call. One merge runs at a time, over all processes.
    """
    merged: list[str] = []
    with try_advisory_lock(MERGE_LOCK) as lock:
        for month in _oldest_months(today) if lock else ():
            if not lock:
                # With its session another merge may have begun.
                break
            try:
                _Merge(month).run()
            except Error as error:
                log.warning("partitions.not_merged", month=month.name, reason=str(error).split("\n")[0])
            else:
                merged.append(month.name)
    if merged:
        log.info("partitions.merged", partitions=merged)
    return merged


def _oldest_months(today: date) -> list[Span]:
    """Return of each table the oldest month that is over, has partitions of days, and can be merged."""
    found = []
    for table, partitioning in PARTITIONED_TABLES.items():
        days = days_with_partitions(table) if partitioning.by_month else []
        months = dict.fromkeys(month_of(table, day_of(name)) for name in days)
        over = (month for month in months if month.end + ENDED_FOR <= today)
        found += [month for month in over if _can_be_merged(month)][:1]
    return found


def _can_be_merged(month: Span) -> bool:
    if rows_in_default(month, most=MAX_MOVED + 1) <= MAX_MOVED:
        return True
    reason = f"more than {MAX_MOVED:,} rows of it lie in the default partition"
    log.warning("partitions.not_merged", month=month.name, reason=reason)
    return False


class _Merge:
    """One month's: its new table, and the names that the statements need."""

    def __init__(self, month: Span) -> None:
        self._days = days_of(month)
        first, end = month.ids
        self._names: dict[str, Composable] = {
            "table": Identifier(month.table),
            "month": Identifier(month.name),
            "default": Identifier(f"{month.table}_default"),
            "follow": Identifier(f"follow_{month.name}"),
            "copy": Identifier(f"copy_{month.name}"),
            "id": Identifier(PARTITIONED_TABLES[month.table].id_column),
            "columns": _columns(month.table, SQL("{}")),
            "new_columns": _columns(month.table, SQL("NEW.{}")),
            "first": Literal(str(first)),
            "end": Literal(str(end)),
            "rows": Literal(ROWS_AT_ONCE),
        }

    def run(self) -> None:
        """Make the month, fill it, and put it in the place of its days."""
        for day in self._days:
            # Of a merge that was broken off, whose table goes.
            self._locking("DROP TRIGGER IF EXISTS follow ON {day}", day=Identifier(day))
        with transaction.atomic():
            self._execute(_MAKE)
        for day in self._days:
            self._locking(_FOLLOW, day=Identifier(day))
            self._copy(day)
        self._execute("ANALYZE {month}")
        self._locking(_SWAP, days=SQL(", ").join(map(Identifier, self._days)))

    def _copy(self, day: str) -> None:
        after: UUID | None = UUID(int=0)
        while after is not None:
            after = self._locking(_COPY, day_name=Literal(day), after=Literal(str(after)))

    def _locking(self, statement: LiteralString, **more: Composable) -> UUID | None:
        """Execute what others wait for, within half a second, as often as it takes to get the locks."""
        for left in reversed(range(MOST_TRIES)):
            try:
                return self._locking_once(statement, **more)
            except OperationalError as error:
                is_passing = isinstance(error.__cause__, errors.LockNotAvailable | errors.QueryCanceled)
                if not left or not is_passing:
                    raise
            # Autovacuum gives way to nobody within the time that is waited here.
            time.sleep(RETRY_S)
        raise AssertionError("unreachable")

    def _locking_once(self, statement: LiteralString, **more: Composable) -> UUID | None:
        with transaction.atomic():
            # One statement holds the locks; should this process be stopped after it, its session ends.
            self._execute(f"SET LOCAL idle_in_transaction_session_timeout = '{LOCKED_FOR_AT_MOST}'")
            self._execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            self._execute(f"SET LOCAL statement_timeout = '{LOCKED_FOR_AT_MOST}'")
            return self._execute(statement, **more)

    def _execute(self, statement: LiteralString, **more: Composable) -> UUID | None:
        with connection.cursor() as cursor:
            cursor.execute(self._sql(statement, **more))
            row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None

    def _sql(self, statement: LiteralString, **more: Composable) -> Composable:
        return SQL(statement).format(**self._names, **more)


def _columns(table: str, each: SQL) -> Composable:
    with connection.cursor() as cursor:
        names = [column.name for column in connection.introspection.get_table_description(cursor, table)]
    return SQL(", ").join(each.format(Identifier(name)) for name in names)


# Its check is known to hold, so that nothing is read when the table takes its place; and autovacuum, which
# would hold it just then, waits until it is there.
_MAKE: LiteralString = """
DROP TABLE IF EXISTS {month};
CREATE TABLE {month} (
    LIKE {table} INCLUDING ALL, CONSTRAINT of_month CHECK ({id} >= {first} AND {id} < {end})
) WITH (autovacuum_enabled = false);
CREATE OR REPLACE FUNCTION {follow}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM {month} WHERE {id} = OLD.{id};
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO {month} ({columns}) VALUES ({new_columns});
    END IF;
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION {copy}(after uuid, day regclass) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE last uuid;
BEGIN
    -- Nobody writes to the day meanwhile, so that no row is on its way by both.
    EXECUTE format('LOCK TABLE %s IN SHARE MODE', day);
    EXECUTE format(
        'WITH next AS MATERIALIZED (
            SELECT {columns} FROM %s WHERE {id} > $1 ORDER BY {id} LIMIT {rows}
        ), copied AS (
            INSERT INTO {month} ({columns}) SELECT {columns} FROM next ON CONFLICT DO NOTHING
        )
        SELECT {id} FROM next ORDER BY {id} DESC LIMIT 1', day
    ) INTO last USING after;
    RETURN last;
END $$
"""
_FOLLOW: LiteralString = """
CREATE OR REPLACE TRIGGER follow AFTER INSERT OR UPDATE OR DELETE ON {day}
    FOR EACH ROW EXECUTE FUNCTION {follow}()
"""
_COPY: LiteralString = "SELECT {copy}({after}, {day_name})"
# Rows in the default partition are of days that never had their own.
_SWAP: LiteralString = """
DO $do$ BEGIN
    LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE;
    DROP TABLE {days};
    WITH moved AS (
        DELETE FROM {default} WHERE {id} >= {first} AND {id} < {end} RETURNING {columns}
    )
    INSERT INTO {month} ({columns}) SELECT {columns} FROM moved;
    ALTER TABLE {table} ATTACH PARTITION {month} FOR VALUES FROM ({first}) TO ({end});
    ALTER TABLE {month} DROP CONSTRAINT of_month;
    ALTER TABLE {month} RESET (autovacuum_enabled);
    DROP FUNCTION {follow}();
    DROP FUNCTION {copy}(uuid, regclass);
END $do$
"""
