"""Slots of a job in a test: runs and gaps, without a worker."""

from datetime import UTC, datetime, timedelta

from prices.ledger.grid import run_id_of
from prices.models import PollGap, PollJob, PollRun

# A slot of its own second.
START = datetime(2026, 11, 22, 14, 30, 0, 250_000, tzinfo=UTC)
REASONS = {"failed": "finnhub: upstream_error", "skipped": "finnhub: budget: used up (60 requests a minute)"}


def slot(number: int, *, interval: int = 1, start: datetime = START) -> datetime:
    """Return the time of a slot by its number."""
    return start + number * timedelta(seconds=interval)


def add_runs(
    job: PollJob,
    states: str,
    *,
    first: int = 0,
    interval: int = 1,
    start: datetime = START,
    reason: str | None = None,
) -> None:
    """Add runs of consecutive slots: a letter each, the first of its state; a dot is no run."""
    names = {state[0]: state for state in ("failed", "claimed", "abandoned")} | {
        "s": "stored",
        "h": "shared",
        "k": "skipped",
    }
    due = [
        (slot(first + n, interval=interval, start=start), names[each])
        for n, each in enumerate(states)
        if each != "."
    ]
    PollRun.objects.bulk_create(
        PollRun(
            id=run_id_of(job.id, due_at),
            job=job,
            due_at=due_at,
            state=state,
            reason=REASONS.get(state, "") if reason is None else reason,
            points=int(state in {"stored", "shared"}),
            started_at=due_at + timedelta(milliseconds=20),
            finished_at=None if state == "claimed" else due_at + timedelta(milliseconds=120),
        )
        for due_at, state in due
    )


def add_gap(
    job: PollJob,
    first: int,
    last: int,
    reason: str = "down: no scheduler ran",
    *,
    interval: int = 1,
    start: datetime = START,
) -> None:
    """Add a gap from one slot to another."""
    PollGap.objects.create(
        job=job,
        from_due=slot(first, interval=interval, start=start),
        to_due=slot(last, interval=interval, start=start),
        slots=last - first + 1,
        reason=reason,
    )
