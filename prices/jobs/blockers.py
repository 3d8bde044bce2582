"""What keeps a job from polling."""

from prices.jobs.services import provider_of
from prices.models import JobStatus, PollJob
from providers.registry import missing_setting


def blockers(job: PollJob) -> list[str]:
    """Say what keeps an active job from polling; nothing where all is well."""
    if job.status != JobStatus.ACTIVE:
        return []
    found = []
    if not job.periodic_task.enabled:
        found.append("switched off: its periodic task was disabled by hand")
    missing = missing_setting(provider_of(job))
    if missing is not None:
        found.append(f"not configured: set {missing}")
    return found
