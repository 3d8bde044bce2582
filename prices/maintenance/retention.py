"""Retention: what is known of single polls goes after a week, a day's partition at a time."""

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
