"""Creating a job with its plan; refused where it is strict and the budget or a key does not carry it."""

from datetime import datetime

from django.conf import settings
from django.db import connection, transaction

from prices.jobs import create_job
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


def create_planned_job(target: Target, *, strict: bool, now: datetime) -> tuple[PollJob, Plan]:
    """Create an active job and give its plan; with `strict`, or QUOTA_STRICT, only if it fits in full.

    Raises BeyondBudgetError or StrictKeyError; then nothing was created.
    """
    with transaction.atomic():
        if strict or settings.QUOTA_STRICT:
            plan = _strict_plan(target, now=now)
        else:
            plan = plan_of(target, now=now, fresh=True)
        job = create_job(symbols=target.symbols, interval=target.interval, provider=target.provider)
    return job, plan


def _strict_plan(target: Target, *, now: datetime) -> Plan:
    # One at a time, until the commit: two that look at once would both see the room for one.
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('strict jobs'))")
    plan = plan_of(target, now=now, fresh=True)
    if isinstance(plan, NotConfigured):
        raise StrictKeyError(plan)
    if not plan.in_full:
        raise BeyondBudgetError(plan)
    return plan
