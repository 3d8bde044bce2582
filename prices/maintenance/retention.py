"""Retention: what is known of single polls, and of single writes of averages, goes after a week."""

from datetime import UTC, date, datetime, timedelta

import structlog
from django.db import OperationalError, connection, transaction
from django.db.models import Min
from psycopg import errors
from psycopg.sql import SQL, Identifier

from prices.database.uuid7 import first_id_at
from prices.maintenance.partitions import LOCK_TIMEOUT, LOCKED_FOR_AT_MOST, day_of, days_with_partitions
from prices.models import JobStatus, PollJob

log = structlog.get_logger(__name__)

RUNS_KEPT_FOR = timedelta(days=7)
# A day brings one. By a clock that is ahead by years all of them would be over, and that may last a minute.
DROPPED_AT_ONCE = 2

BATCHES_KEPT_FOR = timedelta(days=7)
# Readers of the stream wait for each transaction that writes: these take some 50 ms.
BATCHES_AT_ONCE = 5_000

# One of before stays: it tells from where on nothing is missing.
_DELETE_BATCHES = """
DELETE FROM average_batches WHERE tx < (
    SELECT tx FROM (SELECT tx, written_at FROM average_batches ORDER BY tx, number LIMIT %s) AS oldest
    WHERE written_at < %s ORDER BY tx DESC LIMIT 1
)
"""
# Of the cluster that a dump was made of.
_DELETE_FOREIGN_BATCHES = """
DELETE FROM average_batches WHERE tx >= (pg_snapshot_xmax(pg_current_snapshot())::text)::bigint
"""
_DELETE_UNSORTED = "DELETE FROM poll_runs_default WHERE id < %s AND state <> 'claimed'"


def drop_old_runs(*, now: datetime) -> list[str]:
    """Drop the partitions of poll_runs whose runs were all due over 7 days ago; return their names.

    The oldest two at most go at once. A day stays while a run of it is open, and while a job has slots of
    it that are not accounted for: without its runs they would pass for slots that nobody polled. What
    cannot be locked within half a second stays for the next time.
    """
    until = _needless_before(now)
    dropped: list[str] = []
    try:
        for name in days_with_partitions("poll_runs"):
            if _end_of(day_of(name)) <= until and len(dropped) < DROPPED_AT_ONCE and _drop(name):
                dropped.append(name)
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(_DELETE_UNSORTED, [first_id_at(until)])
    except OperationalError as error:
        if not isinstance(error.__cause__, errors.LockNotAvailable | errors.QueryCanceled):
            raise
        log.info("runs.kept", reason="poll_runs is in use")
    if dropped:
        log.info("runs.dropped", partitions=dropped)
    return dropped


def delete_old_batches(*, now: datetime) -> int:
    """Delete what was noted of averages written over 7 days ago, and return how many rows that were.

    The last of them stays. Those of transactions that are still to come go at once.
    """
    with connection.cursor() as cursor:
        cursor.execute(_DELETE_FOREIGN_BATCHES)
        deleted, done = int(cursor.rowcount), 1
        while done:
            cursor.execute(_DELETE_BATCHES, [BATCHES_AT_ONCE, now - BATCHES_KEPT_FOR])
            done = int(cursor.rowcount)
            deleted += done
    return deleted


def _needless_before(now: datetime) -> datetime:
    """Return the time before which no slot's run is needed any more."""
    jobs = PollJob.objects.exclude(status=JobStatus.STOPPED)
    accounted_until = jobs.aggregate(least=Min("accounted_until"))["least"]
    kept = now - RUNS_KEPT_FOR
    return kept if accounted_until is None else min(kept, accounted_until)


def _end_of(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)


def _drop(name: str) -> bool:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        # Nobody can open another one: a slot that is accounted for cannot be claimed.
        cursor.execute(SQL("SELECT EXISTS (SELECT FROM {} WHERE state = 'claimed')").format(Identifier(name)))
        if cursor.fetchone() == (True,):
            return False
        cursor.execute(f"SET LOCAL statement_timeout = '{LOCKED_FOR_AT_MOST}'")
        cursor.execute(SQL("DROP TABLE {}").format(Identifier(name)))
    return True
