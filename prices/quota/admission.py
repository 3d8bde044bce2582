"""Jobs with their plans; refused where they are strict and the budget or a key does not carry them."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction

from prices.jobs.services import change_job, create_job, get_job
from prices.models import PollJob
from prices.quota.demand import Target
from prices.quota.plan import NotConfigured, Plan, QuotaPlan, plan_of


class BeyondBudgetError(Exception):
    """A strict job wants more than the budget has for it; `plan` says what would fit."""

    def __init__(self, plan: QuotaPlan) -> None:
        super().__init__(plan.provider)
        self.plan = plan


class StrictKeyError(Exception):
    """A strict job's provider has no key."""

    def __init__(self, plan: NotConfigured) -> None:
        super().__init__(plan.provider)
        self.plan = plan


def create_planned_job(
    target: Target, *, strict: bool, now: datetime, client_id: UUID | None = None
) -> tuple[PollJob, Plan]:
    """Create an active job and give its plan; with `strict`, or QUOTA_STRICT, only if it fits in full.

    Raises BeyondBudgetError or StrictKeyError; then nothing was created.
    """
    with transaction.atomic():
        if is_strict := strict or settings.QUOTA_STRICT:
            _one_at_a_time()
        plan = plan_of(target, now=now, fresh=True)
        if is_strict:
            _refuse_beyond(plan)
        job = create_job(
            symbols=target.symbols,
            interval=target.interval,
            provider=target.provider,
            client_id=client_id,
            market_hours=target.market_hours,
        )
    return job, plan


def change_planned_job(
    job_id: UUID,
    *,
    interval: int | None = None,
    symbols: Sequence[str] | None = None,
    market_hours: bool | None = None,
    strict: bool,
    now: datetime,
) -> PollJob:
    """Change a job as `change_job` does; with `strict`, or QUOTA_STRICT, to more only if that fits in full.

    More is a shorter interval, a symbol that was not polled before, or all hours in place of market hours.
    Raises JobNotFoundError, JobStoppedError, UnservedSymbolsError, BeyondBudgetError or StrictKeyError; then
    nothing has changed.
    """
    with transaction.atomic():
        if is_strict := strict or settings.QUOTA_STRICT:
            _one_at_a_time()
        former = get_job(job_id)
        job = change_job(job_id, interval=interval, symbols=symbols, market_hours=market_hours, now=now)
        if is_strict and _is_more(job, former):
            _refuse_beyond(plan_of(job, now=now, fresh=True))
    return job


def _is_more(job: PollJob, former: PollJob) -> bool:
    is_new = not set(job.symbols) <= set(former.symbols)
    return job.interval < former.interval or is_new or job.market_hours < former.market_hours


def _one_at_a_time() -> None:
    # Until the commit: two that look at once would both see the room for one.
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('strict jobs'))")


def _refuse_beyond(plan: Plan) -> None:
    if isinstance(plan, NotConfigured):
        raise StrictKeyError(plan)
    if not plan.in_full:
        raise BeyondBudgetError(plan)
