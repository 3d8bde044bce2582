"""What keeps a job from polling."""

from datetime import datetime

from prices.jobs.services import provider_of
from prices.ledger.grid import phase_of, slot_at
from prices.ledger.market_hours import is_polled_at, next_polled_slot
from prices.models import JobStatus, PollJob
from providers.registry import missing_setting


def blockers(job: PollJob, *, now: datetime) -> list[str]:
    """Say what keeps an active job from polling at this moment; nothing where all is well."""
    if job.status != JobStatus.ACTIVE:
        return []
    found = []
    if not job.periodic_task.enabled:
        found.append("switched off: its periodic task was disabled by hand")
    missing = missing_setting(provider_of(job))
    if missing is not None:
        found.append(f"not configured: set {missing}")
    current = slot_at(now, job.interval, phase_of(job.provider, job.interval, job.symbols))
    if not is_polled_at(job, current):
        found.append(f"market_closed: polled again at {next_polled_slot(job, current):%Y-%m-%d %H:%M:%S} UTC")
    return found
