"""What each job of a provider may ask for at each of its slots."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from fractions import Fraction
from math import ceil, floor
from typing import Any

from django.db import connection

from prices.models import PollJob
from prices.models.poll_job import MAX_INTERVAL_S
from prices.quota.demand import ClassKey, Demand, Target, key_of, load_demands
from prices.quota.fair_shares import UNITS, FairShares
from prices.quota.turns import Turn, in_its_hours, take_turns
from providers.adapters.yahoo.batches import asks_singly
from providers.rate_limits.budget import limits_of, remaining, reserved_for_latest
from providers.rate_limits.limits import Limit, binding_limit, time_in_words
from providers.rate_limits.redis_scripts import SharedStateError
from providers.registry import get_provider

# For so long a process goes on with what it knows of the jobs without a look at them.
REUSE = timedelta(seconds=2)
# The hours of markets, and so the shares, change slowly.
REMADE_AFTER = timedelta(minutes=5)
# Transactions commit in any order, but each change of a job is by another one: each changes the sum. A job
# that is stopped takes its part away; one that comes adds more, since its transaction is later than all.
_MARK = """
    SELECT count(*), sum(changed), (SELECT last_update FROM django_celery_beat_periodictasks WHERE ident = 1)
    FROM poll_jobs WHERE status <> 'stopped'
"""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a class of jobs gets, in requests a window.

    `in_full`: nothing is ever withheld. `interval_s`: how often each symbol is asked for; None: never.
    `market_hours_only`: nothing is asked for while all of its markets are closed, and `interval_s` is the
    one while they are open, unless it is longer than their hours.
    """

    wanted: Fraction
    granted: Fraction
    in_full: bool
    interval_s: int | None
    market_hours_only: bool


@dataclass(frozen=True)
class Allowance:
    """A provider's budget, shared among its active jobs as they were at one moment.

    `limit` is the one that binds, None where the provider has none; `kept` of its requests are for GET
    latest. Of jobs that fit nothing is ever withheld: only the others have a turn in `turns`.
    """

    provider: str
    limit: Limit | None = None
    kept: int = 0
    demands: Mapping[ClassKey, Demand] = field(default_factory=dict)
    shares: FairShares = field(default_factory=lambda: FairShares([], 0))
    turns: Mapping[ClassKey, Turn] = field(default_factory=dict)

    def symbols_at(self, job: PollJob, due_at: datetime, *, used: int = 0) -> tuple[str, ...]:
        """Return the symbols to ask for at a slot, in the job's order; none: the slot is left out.

        A job's first poll is granted at once as far as its grant of one window goes, and while a quarter of
        the requests that jobs share is not used: many new jobs must not use up a day at once. `used` counts
        the requests of the last window.
        """
        key = key_of(job)
        turn = self.turns.get(key)
        if turn is None:
            return tuple(job.symbols)
        requests = get_provider(self.provider).plan(key.symbols, singly=asks_singly(self.provider))
        before = due_at - timedelta(seconds=job.interval)
        granted = turn.granted(len(requests), after=before, due_at=due_at)
        if job.last_run_at is None:
            at_once = max(1, self.for_jobs // 4) - used
            granted |= set(range(min(ceil(turn.grant / UNITS), at_once)))
        asked = {
            symbol for index, request in enumerate(requests) if index in granted for symbol in request.symbols
        }
        return tuple(symbol for symbol in job.symbols if symbol in asked)

    def over_budget_reason(self, job: PollJob | Target) -> str:
        """Say why a slot of the job is left out, and how often its symbols are asked for instead."""
        grant = self.grant_of(key_of(job))
        if grant.interval_s is None:
            return "budget: GET latest keeps all of it"
        turn = self.turns.get(key_of(job))
        if turn is not None and turn.row.rate is None:
            return "budget: nothing is asked for while all of the job's markets are closed"
        if grant.interval_s == job.interval:
            return "budget: now and then a slot is left out, so that jobs keep within it"
        hours = " while its markets are open" if grant.market_hours_only else ""
        really, wanted = time_in_words(grant.interval_s), time_in_words(job.interval)
        return f"budget: each symbol is asked for every {really}{hours}, not every {wanted}"

    def grant_of(self, key: ClassKey) -> Grant:
        """Return what a class of jobs gets; one that is not known gets what it wants."""
        demand, turn = self.demands.get(key), self.turns.get(key)
        if self.limit is None or demand is None:
            return Grant(Fraction(0), Fraction(0), True, key.interval, False)
        window_us = self.limit.window_ms * 1000
        wanted = demand.wanted_in(window_us)
        if turn is None:
            return Grant(wanted, wanted, True, key.interval, False)
        granted, clock = turn.grant / UNITS, turn.row.clock
        paced = turn.row.rate is not None
        reached = _reached(demand, granted, clock.running_us, window_us) if paced else key.interval
        return Grant(wanted, granted, False, reached, clock.follows_markets)

    def in_use_without(self, key: ClassKey) -> Fraction:
        """Return the requests a window that other jobs want, up to all that jobs may have."""
        return min(Fraction(self.shares.wanted - self._own_units(key), UNITS), Fraction(self.for_jobs))

    @property
    def for_jobs(self) -> int:
        """The requests of a window that jobs share."""
        return self.limit.requests - self.kept if self.limit else 0

    def shortest_interval(self, key: ClassKey) -> int | None:
        """Return the shortest interval (seconds) of which nothing is withheld; None: not even 86,400 s."""
        if self.limit is None:
            return 1
        share = self.shares.level_without_end(self._own_units(key))
        if share == 0:
            return None
        found = self.demands[key].shortest_interval(share, self.limit.window_ms * 1000)
        return found if found <= MAX_INTERVAL_S else None

    def _own_units(self, key: ClassKey) -> int:
        demand = self.demands.get(key)
        return demand.units_in(self.limit.window_ms * 1000) if demand and self.limit else 0


def allowance_of(provider: str, *, now: datetime) -> Allowance:
    """Return how the provider's budget is shared among its active jobs, as they were up to 2 s ago."""
    known = _known.get(provider)
    if known is not None and timedelta(0) <= now - known.checked_at < REUSE:
        return known.allowance
    return read_allowance(provider, now=now)


def read_allowance(provider: str, *, now: datetime) -> Allowance:
    """Return how the provider's budget is shared among the jobs that are active at this moment.

    One small query where no job has changed since the last time.
    """
    if binding_limit(limits_of(provider)) is None:
        return Allowance(provider)
    # Before the jobs are read: of a change in between there is another mark, which is seen the next time.
    mark = (*_mark(), asks_singly(provider))
    known = _known.get(provider)
    if known is None or not known.holds(mark, now=now):
        known = _Known(mark, now, now, make_allowance(provider, load_demands(provider), now=now))
    _known[provider] = replace(known, checked_at=now)
    return known.allowance


def make_allowance(provider: str, demands: Mapping[ClassKey, Demand], *, now: datetime) -> Allowance:
    """Return the provider's budget as it is shared among these demands."""
    limit = binding_limit(limits_of(provider))
    if limit is None:
        return Allowance(provider)
    kept = reserved_for_latest(limit)
    capacity = (limit.requests - kept) * UNITS
    window_us = limit.window_ms * 1000
    demands = {
        key: in_its_hours(demand, provider=provider, window_us=window_us, now=now)
        for key, demand in demands.items()
    }
    wants = {key: demand.units_in(window_us) for key, demand in demands.items()}
    shares = FairShares(wants.values(), capacity)
    level = shares.level()
    turns: Mapping[ClassKey, Turn] = {}
    if level is not None:
        # Wants are whole: above the level is above its whole part, which is faster to compare with.
        top = floor(level)
        over = [demand for key, demand in demands.items() if wants[key] > top]
        left = capacity - sum(want for want in wants.values() if want <= top)
        turns = take_turns(over, provider=provider, limit=limit, capacity=left, now=now)
    return Allowance(provider, limit, kept, demands, shares, turns)


def requests_used(provider: str, limit: Limit) -> int:
    """Return how many requests of the limit's last window jobs have used; all where Redis is away."""
    try:
        windows = remaining(provider).windows
    except SharedStateError:
        return limit.requests
    matching = [use.used - use.by_latest for use in windows or () if use.window_s == limit.window_s]
    return max(matching, default=0)


def forget_allowances() -> None:
    """Forget what is known of the jobs, so that the next question reads them anew.

    For tests: budgets are settings, and no process sees those change.
    """
    _known.clear()


def _mark() -> tuple[Any, ...]:
    """Return what is another one after each change of a job, or of a periodic task by hand."""
    with connection.cursor() as cursor:
        cursor.execute(_MARK)
        return tuple(cursor.fetchone())


def _reached(demand: Demand, granted: Fraction, running_us: int, window_us: int) -> int | None:
    polls = granted / demand.requests
    if polls == 0:
        return None
    # Less than one a window: then the hours in between count too.
    span_us = running_us if polls >= 1 else window_us
    return max(demand.key.interval, round(span_us / polls / 1_000_000))


@dataclass(frozen=True, slots=True)
class _Known:
    mark: tuple[Any, ...]
    made_at: datetime
    checked_at: datetime
    allowance: Allowance

    def holds(self, mark: tuple[Any, ...], *, now: datetime) -> bool:
        young = timedelta(0) <= now - self.made_at < REMADE_AFTER
        return young and mark == self.mark


_known: dict[str, _Known] = {}
