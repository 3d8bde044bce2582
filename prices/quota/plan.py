"""What the budget means for one job: the figures that answers, the admin and `manage.py quota` show."""

from dataclasses import asdict, dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any

from prices.jobs.blockers import blockers
from prices.jobs.services import choose_provider, provider_of
from prices.ledger.market_hours import calendars_of
from prices.models import JobStatus, PollJob
from prices.models.poll_job import MAX_INTERVAL_S
from prices.quota.allowance import Allowance, Grant, allowance_of, make_allowance, read_allowance
from prices.quota.clock import DAY_US
from prices.quota.demand import Target, demand_of, key_of
from prices.quota.turns import in_its_hours
from providers.rate_limits.limits import NO_LIMIT, in_words, parse_limits, time_in_words
from providers.registry import missing_setting


@dataclass(frozen=True, slots=True)
class NotConfigured:
    """The job's provider has no key: nothing is asked before `variable` is set."""

    provider: str
    variable: str

    def __str__(self) -> str:
        return f"not configured: set {self.variable}"


@dataclass(frozen=True, slots=True)
class QuotaPlan:
    """How far a provider's budget carries a job.

    budget                the limit that binds, as settings write it: 25/1d; or none
    reserved_for_latest   of its requests, those that GET latest may use
    in_use                of its requests, those that other active jobs want, up to all that jobs may have
    wanted_per_day        requests a day that the job's interval takes; on a trading day, for market hours
    granted_per_day       requests a day that it gets; on a trading day, where `market_hours_only`
    in_full               nothing is ever withheld
    interval              seconds between polls, as asked for
    effective_interval    seconds between two requests for a symbol, really; None: it is never asked for
    market_hours_only     nothing is asked for while all of its markets are closed
    shortest_interval     seconds: with this or a longer interval nothing is withheld; None: with none allowed
    """

    provider: str
    budget: str
    reserved_for_latest: int
    in_use: Fraction
    wanted_per_day: Fraction
    granted_per_day: Fraction
    in_full: bool
    interval: int
    effective_interval: int | None
    market_hours_only: bool
    shortest_interval: int | None


Plan = QuotaPlan | NotConfigured


def plan_of(job: PollJob | Target, *, now: datetime, fresh: bool = False) -> Plan:
    """Return the plan of an active job, or of one that might be created.

    `fresh`: with the jobs of this moment, not of up to 2 s ago.
    """
    provider = provider_of(job) if isinstance(job, PollJob) else choose_provider(job.symbols, job.provider)
    missing = missing_setting(provider)
    if missing is not None:
        return NotConfigured(provider, missing)
    allowance = (read_allowance if fresh else allowance_of)(provider, now=now)
    return plan_within(_with_class_of(job, allowance, now=now), job, now=now)


def plan_of_active(job: PollJob, *, now: datetime, fresh: bool = False) -> Plan | None:
    """Return the plan of a job; None where it is paused, stopped or switched off.

    `fresh`: with the jobs of this moment, not of up to 2 s ago.
    """
    if job.status != JobStatus.ACTIVE or not job.periodic_task.enabled:
        return None
    return plan_of(job, now=now, fresh=fresh)


def plan_within(allowance: Allowance, job: PollJob | Target, *, now: datetime) -> QuotaPlan:
    """Return the plan of a job whose demand the allowance knows."""
    key = key_of(job)
    grant = allowance.grant_of(key)
    wanted, granted = _requests_a_day(allowance, job, grant, now=now)
    return QuotaPlan(
        provider=allowance.provider,
        budget=str(allowance.limit or NO_LIMIT),
        reserved_for_latest=allowance.kept,
        in_use=allowance.in_use_without(key),
        wanted_per_day=wanted,
        granted_per_day=granted,
        in_full=grant.in_full,
        interval=job.interval,
        effective_interval=grant.interval_s,
        market_hours_only=grant.market_hours_only or _follows_markets(job),
        shortest_interval=allowance.shortest_interval(key),
    )


def all_blockers(job: PollJob, plan: Plan | None, *, now: datetime) -> list[str]:
    """Say what keeps an active job from polling, or from polling as often as it asks for."""
    found = blockers(job, now=now)
    if isinstance(plan, QuotaPlan) and not plan.in_full:
        found.append(f"budget: {plan_in_words(plan)}")
    return found


def plan_in_words(plan: Plan) -> str:
    """Return a plan as a sentence without its full stop."""
    if isinstance(plan, NotConfigured):
        return str(plan)
    if plan.in_full:
        day = "trading day" if plan.market_hours_only else "day"
        wanted = f"{figure(plan.wanted_per_day):,} requests a {day}"
        return f"all of its {wanted} (budget: {budget_in_words(plan)})"
    if plan.effective_interval is None:
        return f"nothing: of the budget, {budget_in_words(plan)}, nothing is left for jobs"
    hours = " while its markets are open" if plan.market_hours_only else ""
    is_rounded = plan.effective_interval == plan.interval and not plan.market_hours_only
    gaps = ", but for a slot now and then" if is_rounded else ""
    return (
        f"{figure(plan.granted_per_day):,} of {figure(plan.wanted_per_day):,} requests a day:"
        f" each symbol every {time_in_words(plan.effective_interval)}{hours}{gaps};"
        f" {shortest_in_words(plan)} (budget: {budget_in_words(plan)})"
    )


def shortest_in_words(plan: QuotaPlan) -> str:
    """Say which interval fits in full: in seconds, as one is given, and as people say it."""
    shortest = plan.shortest_interval
    if shortest is None:
        return f"not even an interval of {MAX_INTERVAL_S} s ({time_in_words(MAX_INTERVAL_S)}) fits in full"
    words = f" ({time_in_words(shortest)})" if shortest >= 60 else ""
    return f"the shortest interval that fits in full is {shortest} s{words}"


def budget_in_words(plan: QuotaPlan) -> str:
    """Return the limit that binds as people say it: `25 requests a day`; or none."""
    return " and ".join(in_words(limit) for limit in parse_limits(plan.budget)) or NO_LIMIT


def plain_plan(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain data, the members in order; numbers as they are shown."""
    if isinstance(plan, NotConfigured):
        return {"not_configured": f"set {plan.variable}"}
    return {
        name: figure(value) if isinstance(value, Fraction) else value for name, value in asdict(plan).items()
    }


def figure(number: Fraction) -> int | float:
    """Return a number as it is shown: whole, or with at most 3 decimals."""
    return int(number) if number.denominator == 1 else round(float(number), 3)


def _with_class_of(job: PollJob | Target, allowance: Allowance, *, now: datetime) -> Allowance:
    key = key_of(job)
    if allowance.limit is not None and key not in allowance.demands:
        # Perhaps it was created since.
        allowance = read_allowance(allowance.provider, now=now)
    if allowance.limit is None or key in allowance.demands:
        return allowance
    demands = {**allowance.demands, key: demand_of(key, allowance.provider)}
    return make_allowance(allowance.provider, demands, now=now)


def _follows_markets(job: PollJob | Target) -> bool:
    return job.market_hours and calendars_of(tuple(job.symbols), provider=job.provider) is not None


def _requests_a_day(
    allowance: Allowance, job: PollJob | Target, grant: Grant, *, now: datetime
) -> tuple[Fraction, Fraction]:
    """Return how many the job wants, and how many it gets."""
    if allowance.limit is not None and not job.market_hours:
        days = Fraction(allowance.limit.window_ms * 1000, DAY_US)
        return grant.wanted / days, grant.granted / days
    demand = demand_of(key_of(job), allowance.provider)
    demand = in_its_hours(demand, provider=allowance.provider, window_us=DAY_US, now=now)
    wanted = demand.wanted_in(DAY_US)
    return wanted, wanted * grant.granted / grant.wanted if grant.wanted else wanted
