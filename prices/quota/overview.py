"""All budgets and all active jobs at one moment, for `manage.py quota`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from uuid import UUID

from prices.jobs.services import provider_of
from prices.models import JobStatus, PollJob
from prices.quota.allowance import Allowance, read_allowance
from prices.quota.demand import key_of
from prices.quota.fair_shares import UNITS
from prices.quota.plan import NotConfigured, Plan, plan_within
from providers.adapters.yahoo.batches import asks_singly
from providers.rate_limits.breaker import breaker_state
from providers.rate_limits.budget import Remaining, WindowUse, limits_of, remaining
from providers.rate_limits.redis_scripts import SharedStateError
from providers.registry import missing_setting


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """A provider's budget, and how its active jobs use it.

    `windows` is None where it cannot be told how much is used, and `unknown` says why. `wanted` and
    `for_jobs` are requests in a window of the limit that binds; `for_jobs` None: there is no limit.
    `held_for_s`: nothing is sent for so long, because the provider refused for its limit; `rests_for_s`:
    because its breaker is open after failures.
    `asks_singly`: calls for several symbols are refused just now, and each symbol takes a request.
    """

    provider: str
    missing_setting: str | None
    limits: Sequence[str]
    windows: Sequence[WindowUse] | None
    unknown: str | None
    held_for_s: float
    rests_for_s: float
    jobs: int
    wanted: Fraction
    for_jobs: int | None
    asks_singly: bool


@dataclass(frozen=True, slots=True)
class JobUse:
    """An active job and its plan."""

    job_id: UUID
    symbols: Sequence[str]
    provider: str
    interval: int
    plan: Plan


@dataclass(frozen=True, slots=True)
class Overview:
    """Budgets by provider, and jobs: those that get the least of what they want first."""

    budgets: Sequence[BudgetUse]
    jobs: Sequence[JobUse]


def read_overview(providers: Sequence[str], *, now: datetime) -> Overview:
    """Return the budgets and the active jobs of these providers. Redis may be away."""
    allowances = {name: read_allowance(name, now=now) for name in providers}
    jobs = sorted(_job_uses(allowances, now=now), key=_satisfaction)
    counts = {name: sum(job.provider == name for job in jobs) for name in providers}
    return Overview([_budget_use(allowances[name], counts[name]) for name in providers], jobs)


def _job_uses(allowances: dict[str, Allowance], *, now: datetime) -> Iterator[JobUse]:
    active = PollJob.objects.filter(status=JobStatus.ACTIVE, periodic_task__enabled=True).order_by("id")
    for job in active:
        allowance = allowances.get(provider_of(job))
        # One that was created a moment ago is not in the shares yet.
        if allowance is not None and (allowance.limit is None or key_of(job) in allowance.demands):
            plan = _plan(job, allowance, now=now)
            yield JobUse(job.id, job.symbols, allowance.provider, job.interval, plan)


def _plan(job: PollJob, allowance: Allowance, *, now: datetime) -> Plan:
    variable = missing_setting(allowance.provider)
    return NotConfigured(allowance.provider, variable) if variable else plan_within(allowance, job, now=now)


def _satisfaction(job: JobUse) -> Fraction:
    if isinstance(job.plan, NotConfigured):
        return Fraction(-1)
    return Fraction(1) if job.plan.in_full else job.plan.granted_per_day / job.plan.wanted_per_day


def _budget_use(allowance: Allowance, jobs: int) -> BudgetUse:
    name = allowance.provider
    left, rests_for_s, unknown = _remaining(name)
    return BudgetUse(
        provider=name,
        missing_setting=missing_setting(name),
        limits=[str(limit) for limit in limits_of(name)],
        windows=left.windows if left else None,
        unknown=unknown,
        held_for_s=left.held_for_s if left else 0.0,
        rests_for_s=rests_for_s,
        jobs=jobs,
        wanted=Fraction(allowance.shares.wanted, UNITS),
        for_jobs=allowance.for_jobs if allowance.limit else None,
        asks_singly=asks_singly(name),
    )


def _remaining(provider: str) -> tuple[Remaining | None, float, str | None]:
    try:
        left, rests_for_s = remaining(provider), breaker_state(provider).retry_after_s
    except SharedStateError as error:
        return None, 0.0, str(error)
    unknown = "not asked since Redis started or lost its counts" if left.windows is None else None
    return left, rests_for_s, unknown
