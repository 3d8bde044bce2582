"""One poll: claim the slot, ask the provider, store the answers, publish the points."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import F
from django.utils import timezone

from prices.fetching import Asked, ask_provider
from prices.ids import new_ids
from prices.ingest import Stored, store_attempts
from prices.jobs import provider_of
from prices.models import JobStatus, PollJob, PollRun, RunState
from prices.outbox import publisher
from prices.patience import patiently
from prices.slots import phase_of, run_id_of, slot_at
from providers.registry import get_provider, missing_setting

log = structlog.get_logger(__name__)

# One statement: whoever pauses or stops the job waits for it, and it waits for them.
_CLAIM = """
    INSERT INTO poll_runs (id, job_id, due_at, state, reason, points, started_at)
    SELECT %s, job.id, %s, 'claimed', '', 0, clock_timestamp()
    FROM poll_jobs job JOIN django_celery_beat_periodictask task ON task.id = job.periodic_task_id
    WHERE job.id = %s AND job.status = 'active' AND task.enabled
    FOR SHARE OF job
    ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A slot that this worker, and no other, polls."""

    run_id: UUID
    job: PollJob
    due_at: datetime
    claimed_at: float  # by the monotonic clock, in seconds


def poll_job(job_id: UUID, *, now: datetime) -> RunState | None:
    """Poll the job's slot at `now`; give what became of it.

    Gives None where there is nothing to do: the slot was claimed before, or the job is unknown,
    paused, stopped or switched off. A provider's failure is an outcome, not an exception.
    """
    claim = claim_slot(job_id, now=now)
    if claim is None:
        return None
    name = provider_of(claim.job)
    missing = missing_setting(name)
    if missing is not None:
        return skip_run(claim, reason=f"not configured: set {missing}")
    asked = ask_provider(get_provider(name), claim.job.symbols, caller="job", may_ask=lambda: _may_ask(claim))
    if asked.refused is not None and not asked.attempts:
        reason = asked.refused.reason
        return patiently(lambda: skip_run(claim, reason=reason))
    raw_ids = patiently(lambda: new_ids(len(asked.attempts)))
    stored = patiently(lambda: record_poll(claim, asked, raw_ids=raw_ids, provider=name))
    if stored.points:
        publisher().publish(stored.points, polls=dict.fromkeys(raw_ids, claim.run_id))
    return RunState.STORED if stored.points else RunState.FAILED


def claim_slot(job_id: UUID, *, now: datetime) -> Claim | None:
    """Claim the job's slot at `now` for this worker, or give None where that cannot be."""
    job = PollJob.objects.filter(id=job_id).first()
    if job is None:
        log.warning("poll.job_unknown", job_id=str(job_id))
        return None
    due_at = slot_at(now, job.interval, phase_of(job.provider, job.interval, job.symbols))
    run_id = run_id_of(job.id, due_at)
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM, [run_id, due_at, job.id])
        return Claim(run_id, job, due_at, time.monotonic()) if cursor.rowcount else None


def record_poll(claim: Claim, asked: Asked, *, raw_ids: Sequence[UUID], provider: str) -> Stored:
    """Store the answers, their points and the outcome of the run, all in one transaction.

    Called again with the same `raw_ids`, it stores no answer twice.
    """
    with transaction.atomic():
        stored = store_attempts(asked.attempts, raw_ids=raw_ids, provider=provider, poll=claim.run_id)
        errors = {symbol: str(error) for symbol, error in asked.errors.items()}
        errors |= dict.fromkeys(stored.refused, "the database cannot hold this price")
        why = asked.refused.reason if asked.refused else "the job was stopped or time ran out"
        errors |= dict.fromkeys(_unasked(claim, asked), f"not asked: {why}")
        state = RunState.STORED if stored.points else RunState.FAILED
        # The job before its run, as in a claim: in another order the two would wait for each other.
        _note_on_job(claim, _summary(errors), ok=bool(stored.points))
        _finish_run(claim, state, reason=_summary(errors), points=len(stored.points))
    if errors:
        log.warning(
            "poll.failed" if state == RunState.FAILED else "poll.partly_failed",
            job_id=str(claim.job.id),
            provider=provider,
            kinds=sorted({error.kind for error in asked.errors.values()}),
            symbols=len(errors),
        )
    return stored


def skip_run(claim: Claim, *, reason: str) -> RunState:
    """Note that the slot was claimed but nothing was asked, and why."""
    with transaction.atomic():
        _note_on_job(claim, reason, ok=False)
        _finish_run(claim, RunState.SKIPPED, reason=reason, points=0)
    return RunState.SKIPPED


def abandon_overdue_runs(*, now: datetime) -> int:
    """Mark claims without an outcome after POLL_DEADLINE_S as abandoned; give how many.

    Their worker died. Such a slot is not fetched again: another answer would be of another time.
    """
    overdue = now - timedelta(seconds=settings.POLL_DEADLINE_S)
    count = PollRun.objects.filter(state=RunState.CLAIMED, started_at__lt=overdue).update(
        state=RunState.ABANDONED, reason="the worker ended before the poll did", finished_at=now
    )
    if count:
        log.warning("poll.abandoned", runs=count)
    return count


def _may_ask(claim: Claim) -> bool:
    # Half of the deadline is left for the last request and for storing what came.
    if time.monotonic() - claim.claimed_at > settings.POLL_DEADLINE_S / 2:
        return False
    try:
        return _is_wanted(claim)
    except (OperationalError, InterfaceError):
        # Nobody can say, so nothing more is sent: what has come so far waits to be stored.
        connection.close()
        return False


def _is_wanted(claim: Claim) -> bool:
    return PollJob.objects.filter(
        id=claim.job.id, status=JobStatus.ACTIVE, periodic_task__enabled=True
    ).exists()


def _unasked(claim: Claim, asked: Asked) -> list[str]:
    return [symbol for symbol in claim.job.symbols if symbol not in asked.results]


def _finish_run(claim: Claim, state: RunState, *, reason: str, points: int) -> None:
    PollRun.objects.filter(id=claim.run_id).update(
        state=state, reason=reason, points=points, finished_at=timezone.now()
    )


def _note_on_job(claim: Claim, error: str, *, ok: bool) -> None:
    now = timezone.now()
    job = PollJob.objects.filter(id=claim.job.id)
    if ok:
        job.update(last_run_at=now, last_success_at=now, last_error=error, failures=0)
    else:
        job.update(last_run_at=now, last_error=error, failures=F("failures") + 1)


def _summary(errors: dict[str, str]) -> str:
    by_text: dict[str, list[str]] = {}
    for symbol, text in errors.items():
        by_text.setdefault(text, []).append(symbol)
    return "; ".join(f"{', '.join(symbols)}: {text}" for text, symbols in by_text.items())[:2000]
