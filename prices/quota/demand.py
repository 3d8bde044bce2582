"""What active jobs want of a provider's budget, by classes of equal jobs."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from math import ceil
from typing import NamedTuple

from django.db.models import Q

from prices.jobs.services import provider_for
from prices.models import JobStatus, PollJob
from prices.quota.fair_shares import UNITS
from prices.symbols import is_simulated
from providers.adapters.yahoo.batches import asks_singly
from providers.registry import get_provider


class ClassKey(NamedTuple):
    """What equal jobs have in common: they fall due together, and one answer serves them all.

    `named` is the provider as the job names it, empty where the service chooses; symbols are sorted. Jobs
    that are polled in market hours alone are a class of their own, also where others ask for the same.
    """

    named: str
    interval: int
    symbols: tuple[str, ...]
    market_hours: bool = False


class Target(NamedTuple):
    """A job that is not there yet: symbols, interval in seconds, provider or None, market hours or always."""

    symbols: Sequence[str]
    interval: int
    provider: str | None
    market_hours: bool = False


@dataclass(frozen=True, slots=True)
class Demand:
    """A class of equal jobs: how many requests a poll takes, and how many jobs share it.

    `running_us`: it is asked for only in slots since which a clock has moved, which runs for so long in a
    window at most; None: in all slots.
    """

    key: ClassKey
    requests: int
    jobs: int
    running_us: int | None = None

    def wanted_in(self, window_us: int) -> Fraction:
        """Return what the class wants in a window, in requests."""
        return Fraction(self.requests * self._asked_us(window_us), self.key.interval * 1_000_000)

    def units_in(self, window_us: int) -> int:
        """Return the same in units."""
        return self.requests * self._asked_us(window_us) * UNITS // (self.key.interval * 1_000_000)

    def shortest_interval(self, share: Fraction, window_us: int) -> int:
        """Return the shortest interval (seconds) of which a window takes no more than a share (in units)."""
        always_s = ceil(self.requests * window_us * UNITS / (share * 1_000_000))
        if self.running_us is None or share <= self.requests * UNITS:
            return max(always_s, 1)
        # A poll more than the hours take: the one that looks back on their end.
        in_hours_s = ceil(self.requests * self.running_us / ((share / UNITS - self.requests) * 1_000_000))
        return max(min(in_hours_s, always_s), 1)

    def while_running(self, running_us: int) -> "Demand":
        """Return the demand with such a clock."""
        return replace(self, running_us=running_us)

    def _asked_us(self, window_us: int) -> int:
        if self.running_us is None:
            return window_us
        return min(window_us, self.running_us + self.key.interval * 1_000_000)


def key_of(job: PollJob | Target) -> ClassKey:
    """Return the class that a job belongs to: what decides its slots too (prices/ledger/grid.py)."""
    return ClassKey(job.provider or "", job.interval, tuple(sorted(job.symbols)), job.market_hours)


def demand_of(key: ClassKey, provider: str, *, jobs: int = 1) -> Demand:
    """Return the demand of a class of jobs on the provider."""
    return Demand(key, _requests(provider, key.symbols, asks_singly(provider)), jobs)


def load_demands(provider: str) -> dict[ClassKey, Demand]:
    """Return what the active jobs of a provider want, by class. One query."""
    rows = (
        PollJob.objects.filter(status=JobStatus.ACTIVE, periodic_task__enabled=True)
        .filter(Q(provider=provider) | Q(provider=None))
        .values_list("provider", "served_by", "interval", "symbols", "market_hours")
    )
    counts = Counter(_keys_for(provider, rows))
    return {key: demand_of(key, provider, jobs=jobs) for key, jobs in counts.items()}


def _keys_for(
    provider: str, rows: Iterable[tuple[str | None, str | None, int, list[str], bool]]
) -> Iterable[ClassKey]:
    # Who is asked for a job without a provider follows from these two alone; asked once, and not for each.
    chosen: dict[tuple[str | None, bool], str] = {}
    for named, served_by, interval, symbols, market_hours in rows:
        simulated = is_simulated(symbols[0])
        if named is None and (served_by, simulated) not in chosen:
            chosen[served_by, simulated] = provider_for(symbols, served_by=served_by)
        if named is not None or chosen[served_by, simulated] == provider:
            yield ClassKey(named or "", interval, tuple(sorted(symbols)), market_hours)


@lru_cache(maxsize=20_000)
def _requests(provider: str, symbols: tuple[str, ...], singly: bool) -> int:
    return len(get_provider(provider).plan(symbols, singly=singly))
