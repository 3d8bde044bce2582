"""Jobs as lists show them: by their status, their provider and what they poll."""

from collections.abc import Sequence

from django.db.models import QuerySet
from django.db.models.functions import Coalesce

from prices.access.rights import FULL_ACCESS, Access
from prices.models import PollJob


def select_jobs(
    *,
    statuses: Sequence[str] = (),
    provider: str | None = None,
    symbol: str | None = None,
    access: Access = FULL_ACCESS,
) -> QuerySet[PollJob]:
    """Return the jobs with their PeriodicTasks: those of any of the statuses, the provider and the symbol.

    Those that were deleted, or are not the caller's, are left out; what is empty or None leaves out none. A
    job is of the provider that it names; one that names none, of the provider that served it last.
    """
    jobs = PollJob.objects.select_related("periodic_task").filter(access.own_jobs, deleted_at=None)
    if statuses:
        jobs = jobs.filter(status__in=set(statuses))
    if provider is not None:
        # As the index poll_jobs_provider_id has it.
        jobs = jobs.alias(asked=Coalesce("provider", "served_by")).filter(asked=provider)
    if symbol is not None:
        jobs = jobs.filter(symbols__contains=[symbol])
    return jobs
