"""Polling one job in a test, without a worker."""

from datetime import datetime
from uuid import UUID

from prices.models import RunState
from prices.polling.poll import claim_and_poll


def poll_job(job_id: UUID, *, now: datetime) -> RunState | None:
    """Poll the job's slot at `now`; give what became of it, None where there was nothing to do."""
    return claim_and_poll([job_id], now=now).states.get(job_id)
