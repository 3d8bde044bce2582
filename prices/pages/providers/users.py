"""Who uses a provider's budget: its jobs by what they get of it, those that get the most first."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from functools import reduce
from heapq import nlargest
from operator import or_
from uuid import UUID

from django.db.models import Q

from prices.access.rights import Access
from prices.jobs.listing import select_jobs
from prices.jobs.services import provider_of
from prices.models import JobStatus, PollJob
from prices.quota import Allowance, figure, key_of, read_allowance
from prices.quota.clock import DAY_US
from prices.quota.demand import ClassKey, Demand, load_demands
from providers.rate_limits.limits import time_in_words, window_in_words

SHOWN = 5
_SYMBOLS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class User:
    """Equal jobs, which one answer serves: what they get, and how often each symbol is asked for really.

    `job_id` is one of them; None where they are other clients'. `share` is what they get of the requests
    that jobs share, in percent, and `gets` the same in requests; both None where there is no limit.
    """

    job_id: UUID | None
    jobs: int
    symbols: str
    asked_every: str
    really_every: str | None
    gets: str | None
    share: str | None


@dataclass(frozen=True, slots=True)
class Users:
    """The jobs of a provider. `for_jobs` is what they share, `kept` what GET latest has for itself.

    `window` is of the limit that binds, in words; None where there is no limit. `others` counts the active
    jobs that are not among the users shown.
    """

    jobs: int
    users: Sequence[User]
    others: int
    wants: str
    for_jobs: int
    kept: int
    window: str | None


def read_users(providers: Sequence[str], *, now: datetime, access: Access) -> dict[str, Users]:
    """Return who uses each provider. Two queries for each at most, and one for the jobs."""
    allowances = {name: read_allowance(name, now=now) for name in providers}
    demands = {
        name: allowance.demands if allowance.limit else load_demands(name)
        for name, allowance in allowances.items()
    }
    top = {
        name: nlargest(SHOWN, found.values(), key=lambda demand: demand.units_in(DAY_US))
        for name, found in demands.items()
    }
    jobs = _jobs_of((demand.key for shown in top.values() for demand in shown), access=access)
    return {name: _users(allowances[name], demands[name], top[name], jobs) for name in providers}


def _jobs_of(keys: Iterable[ClassKey], *, access: Access) -> Mapping[tuple[str, ClassKey], UUID]:
    """Return a job of each class and provider, of those that the caller may see. One query."""
    wanted = [
        Q(
            provider=key.named or None,
            interval=key.interval,
            market_hours=key.market_hours,
            symbols__contains=list(key.symbols),
            symbols__len=len(key.symbols),
        )
        for key in keys
    ]
    if not wanted:
        return {}
    alike = ("provider", "served_by", "interval", "market_hours", "symbols")
    jobs = select_jobs(statuses=[JobStatus.ACTIVE], access=access).filter(reduce(or_, wanted))
    found: Iterable[PollJob] = jobs.order_by(*alike, "id").distinct(*alike)
    return {(provider_of(job), key_of(job)): job.id for job in found}


def _users(
    allowance: Allowance,
    demands: Mapping[ClassKey, Demand],
    top: Sequence[Demand],
    jobs: Mapping[tuple[str, ClassKey], UUID],
) -> Users:
    count = sum(demand.jobs for demand in demands.values())
    limit = allowance.limit
    window_us = limit.window_ms * 1000 if limit else DAY_US
    wants = sum((demand.wanted_in(window_us) for demand in demands.values()), Fraction(0))
    return Users(
        jobs=count,
        users=[_user(allowance, demand, jobs.get((allowance.provider, demand.key))) for demand in top],
        others=count - sum(demand.jobs for demand in top),
        wants=f"{figure(wants):,}",
        for_jobs=allowance.for_jobs,
        kept=allowance.kept,
        window=window_in_words(limit) if limit else None,
    )


def _user(allowance: Allowance, demand: Demand, job_id: UUID | None) -> User:
    key, grant = demand.key, allowance.grant_of(demand.key)
    is_limited = allowance.limit is not None
    share = 100 * grant.granted / allowance.for_jobs if allowance.for_jobs else Fraction(0)
    return User(
        job_id=job_id,
        jobs=demand.jobs,
        symbols=_first(key.symbols) if job_id else "",
        asked_every=time_in_words(key.interval),
        really_every=None if grant.interval_s is None else time_in_words(grant.interval_s),
        gets=f"{figure(grant.granted):,}" if is_limited else None,
        share=f"{float(share):.0f} %" if is_limited else None,
    )


def _first(symbols: Sequence[str]) -> str:
    more = f" and {len(symbols) - _SYMBOLS_SHOWN} more" if len(symbols) > _SYMBOLS_SHOWN else ""
    return f"{', '.join(symbols[:_SYMBOLS_SHOWN])}{more}"
