"""Accounting: each slot that was due has its run in poll_runs, or lies in a range of poll_gaps, with why.

A job's row holds how far that is so, and no slot up to there can be claimed: whoever accounts holds the
row's lock against those that claim. A change of a job accounts for what was due before it, as the job was
then.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from django.db import connection, transaction

from prices.clock import database_now
from prices.database.advisory_locks import try_advisory_lock
from prices.database.uuid7 import first_id_at
from prices.ledger.beat_terms import Terms, first_led, read_terms
from prices.ledger.gaps import Gap, GapReason, add_gaps
from prices.ledger.grid import phase_of, slot_at
from prices.ledger.market_hours import JobHours, hours_of
from prices.ledger.ranges import SlotRange, slots_between, split_by_terms
from prices.ledger.set_back import BEYOND, take_back_job, undo_time_to_come
from prices.models import JobStatus, PollJob

log = structlog.get_logger(__name__)

ACCOUNTING_LOCK = "accounting"
# Claims of these jobs wait while they are accounted for.
JOBS_AT_A_TIME = 100
# The clocks of the hosts differ a little, and a beat notes a moment later that it has led until now.
SETTLED_AFTER = timedelta(seconds=5)
# A job is looked at once so much is due, so that few rows are written.
ACCOUNTED_EACH_S = 30
_MILLISECOND = timedelta(milliseconds=1)
_LOGGED_AS_MISSED = frozenset({GapReason.DOWN, GapReason.CLOCK_AHEAD, GapReason.NOT_POLLED})

_LOCK_DUE_JOBS = """
    SELECT job.id, job.symbols, job.interval, job.provider, job.status, task.enabled, job.created_at,
           job.accounted_until, job.market_hours, job.market_hours_from
    FROM poll_jobs job
    JOIN django_celery_beat_periodictask task ON task.id = job.periodic_task_id
    WHERE job.id > %s AND job.status <> 'stopped'
      AND job.accounted_until < %s - make_interval(secs => job.interval + greatest(%s, %s * job.interval))
    ORDER BY job.id
    LIMIT %s
    FOR NO KEY UPDATE OF job
"""
# Two slots that have runs, or lie at the ends, with others between them: nothing is listed slot by slot.
_HOLES = """
    WITH job AS (
        SELECT * FROM unnest(%s::uuid[], %s::interval[], %s::timestamptz[], %s::timestamptz[], %s::uuid[],
                             %s::uuid[])
            AS job (id, step, after, before, first_id, end_id)
    ), taken AS (
        SELECT run.job_id, run.due_at, job.step
        FROM job
        JOIN poll_runs run ON run.job_id = job.id AND run.id >= job.first_id AND run.id < job.end_id
        WHERE run.id >= %s AND run.id < %s
        UNION ALL SELECT id, after, step FROM job
        UNION ALL SELECT id, before, step FROM job
    ), pairs AS (
        SELECT *, lead(due_at) OVER (PARTITION BY job_id ORDER BY due_at) AS following FROM taken
    )
    SELECT job_id, due_at, following FROM pairs WHERE following - due_at > step ORDER BY job_id, due_at
"""
_NOTE_ACCOUNTED = """
    UPDATE poll_jobs job SET accounted_until = account.until
    FROM unnest(%s::uuid[], %s::timestamptz[]) AS account (id, until)
    WHERE job.id = account.id
"""


@dataclass(frozen=True, slots=True)
class Account:
    """The slots of a job after one moment and up to another; `reason` says why none of them was polled.

    Without one, the terms of beat tell. Slots before a beat first led after `created_at` do not count as
    missed. `hours`: outside of these no slot was to be polled, whatever kept the others.
    """

    job_id: UUID
    interval: int
    phase: timedelta
    created_at: datetime
    after: datetime
    until: datetime
    reason: GapReason | None
    hours: JobHours | None

    @property
    def step(self) -> timedelta:
        """Return the time between two slots."""
        return timedelta(seconds=self.interval)


def account_slots(*, now: datetime | None = None, all_jobs: bool = False) -> int:
    """Account for the slots that can no longer be claimed; return how many of them became gaps.

    A job is looked at each 30 seconds at most, or all jobs at once with `all_jobs`. What a job missed while
    its periodic task was disabled by hand is known by its being disabled at this moment. One runs at a time,
    over all processes; a second one ends at once.
    """
    missed = 0
    last_id = UUID(int=0)
    with try_advisory_lock(ACCOUNTING_LOCK) as mine:
        if mine:
            undo_time_to_come(now=now)
        while mine:
            with transaction.atomic():
                accounts = _lock_due_jobs(last_id, now=now or database_now(), all_jobs=all_jobs)
                missed += _account(accounts)
            if len(accounts) < JOBS_AT_A_TIME:
                break
            last_id = accounts[-1].job_id
    return missed


def account_for_change(job: PollJob, *, now: datetime, cut_off: GapReason | None = None) -> None:
    """Account for the slots before the job's current one, as the job is before its change.

    `cut_off`: the change ends the grid, so the current slot is accounted for too, with this reason where the
    job was being polled. The caller holds the lock of the job's row, in a transaction.
    """
    # By a clock that was ahead and is set right since, slots of the time to come are accounted for.
    take_back_job(job, now=now)
    reason = _standing_reason(job.status, enabled=job.periodic_task.enabled)
    phase = phase_of(job.provider, job.interval, job.symbols)
    current = slot_at(now, job.interval, phase)
    before = max(current - timedelta(seconds=job.interval), job.accounted_until)
    until_now = _account_of(job, until=before, reason=reason)
    accounts = [until_now]
    if cut_off is not None:
        # A clock that was set back by some seconds is not repaired, so that claims may lie after `now`.
        end = max(now, before, _last_claimed(job.id, since=current, until=now + BEYOND) or now)
        accounts.append(replace(until_now, after=before, until=end, reason=reason or cut_off))
    for account in accounts:
        _account([account])


def _standing_reason(status: str, *, enabled: bool) -> GapReason | None:
    if status == JobStatus.PAUSED:
        return GapReason.PAUSED
    return None if enabled else GapReason.SWITCHED_OFF


def _lock_due_jobs(last_id: UUID, *, now: datetime, all_jobs: bool) -> list[Account]:
    least_s, least_intervals = (0, 0) if all_jobs else (ACCOUNTED_EACH_S, 1)
    settled = now - SETTLED_AFTER
    with connection.cursor() as cursor:
        cursor.execute(_LOCK_DUE_JOBS, [last_id, settled, least_s, least_intervals, JOBS_AT_A_TIME])
        return [_account_of_settled(_DueJob(*row), settled=settled) for row in cursor.fetchall()]


class _DueJob(NamedTuple):
    """A row of `_LOCK_DUE_JOBS`."""

    id: UUID
    symbols: Sequence[str]
    interval: int
    provider: str | None
    status: str
    enabled: bool
    created_at: datetime
    accounted_until: datetime
    market_hours: bool
    market_hours_from: datetime | None


def _account_of_settled(job: _DueJob, *, settled: datetime) -> Account:
    phase = phase_of(job.provider, job.interval, job.symbols)
    # Of the slots that are over: a slot lasts until the next one.
    until = slot_at(settled, job.interval, phase) - timedelta(seconds=job.interval)
    reason = _standing_reason(job.status, enabled=job.enabled)
    return _account_of(job, until=max(until, job.accounted_until), reason=reason)


def _account_of(job: PollJob | _DueJob, *, until: datetime, reason: GapReason | None) -> Account:
    phase = phase_of(job.provider, job.interval, job.symbols)
    # While it is not polled at all, that is why.
    hours = hours_of(job) if reason is None else None
    return Account(job.id, job.interval, phase, job.created_at, job.accounted_until, until, reason, hours)


def _account(accounts: Sequence[Account]) -> int:
    accounts = [account for account in accounts if account.until > account.after]
    if not accounts:
        return 0
    gaps = list(_gaps_of(accounts))
    add_gaps(gaps)
    with connection.cursor() as cursor:
        ids, ends = [each.job_id for each in accounts], [each.until for each in accounts]
        cursor.execute(_NOTE_ACCOUNTED, [ids, ends])
    unwanted = [gap for gap in gaps if gap.reason in _LOGGED_AS_MISSED]
    if unwanted:
        log.warning("slots.missed", slots=sum(gap.slots.count for gap in unwanted), gaps=len(unwanted))
    return sum(gap.slots.count for gap in gaps)


def _gaps_of(accounts: Sequence[Account]) -> Iterator[Gap]:
    holes = _holes(accounts)
    if not holes:
        return
    since, until = min(hole.first for _, hole in holes), max(hole.last for _, hole in holes)
    terms = read_terms(since, until)
    begins = first_led({account.created_at for account, _ in holes})
    for account, found in holes:
        hole = found.from_on(begins[account.created_at])
        if hole is None:
            continue
        for part, reason in _with_reasons(account, hole, terms):
            yield Gap(account.job_id, part, reason)


def _with_reasons(account: Account, hole: SlotRange, terms: Terms) -> Iterator[tuple[SlotRange, GapReason]]:
    parts = [(hole, True)] if account.hours is None else account.hours.split(hole)
    for part, was_to_be_polled in parts:
        if not was_to_be_polled:
            yield part, GapReason.MARKET_CLOSED
        elif account.reason is not None:
            yield part, account.reason
        else:
            yield from _by_terms(part, terms)


def _by_terms(slots: SlotRange, terms: Terms) -> Iterator[tuple[SlotRange, GapReason]]:
    for part, is_in_term in split_by_terms(slots, terms.right):
        if is_in_term:
            yield part, GapReason.NOT_POLLED
            continue
        for rest, was_ahead in split_by_terms(part, terms.by_clock_ahead):
            yield rest, GapReason.CLOCK_AHEAD if was_ahead else GapReason.DOWN


def _holes(accounts: Sequence[Account]) -> list[tuple[Account, SlotRange]]:
    """Return the slots without a run, as ranges."""
    by_id = {account.job_id: account for account in accounts}
    with connection.cursor() as cursor:
        cursor.execute(_HOLES, _hole_columns(accounts))
        rows: list[tuple[UUID, datetime, datetime]] = cursor.fetchall()
    holes = []
    for job_id, after, before in rows:
        account = by_id[job_id]
        missing = slots_between(after, before, interval=account.interval, phase=account.phase)
        if missing is not None:
            holes.append((account, missing))
    return holes


def _hole_columns(accounts: Sequence[Account]) -> list[Any]:
    # Slots, and so the ids of runs, are whole milliseconds.
    first_ids = [first_id_at(account.after + _MILLISECOND) for account in accounts]
    end_ids = [first_id_at(account.until + _MILLISECOND) for account in accounts]
    ends = [slot_at(account.until, account.interval, account.phase) + account.step for account in accounts]
    return [
        [account.job_id for account in accounts],
        [account.step for account in accounts],
        [slot_at(account.after, account.interval, account.phase) for account in accounts],
        ends,
        first_ids,
        end_ids,
        # Once more for all: these bounds leave out partitions.
        min(first_ids),
        max(end_ids),
    ]


def _last_claimed(job_id: UUID, *, since: datetime, until: datetime) -> datetime | None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT max(due_at) FROM poll_runs WHERE job_id = %s AND id >= %s AND id < %s",
            [job_id, first_id_at(since), first_id_at(until)],
        )
        (last,) = cursor.fetchone()
    return last  # type: ignore[no-any-return]
