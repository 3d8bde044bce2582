"""What active jobs want of a provider's budget, by classes of equal jobs."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
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

    `named` is the provider as the job names it, empty where the service chooses; symbols are sorted.
    """

    named: str
    interval: int
    symbols: tuple[str, ...]


class Target(NamedTuple):
    """A job that is not there yet: symbols, interval in seconds, provider or None, market hours or always."""

    symbols: Sequence[str]
    interval: int
    provider: str | None
    market_hours: bool = False


@dataclass(frozen=True, slots=True)
class Demand:
    """A class of equal jobs: how many requests a poll takes, and how many jobs share it."""

    key: ClassKey
    requests: int
    jobs: int

    def units_in(self, window_us: int) -> int:
        """Return what the class wants in a window, in units: all its slots."""
        return self.requests * window_us * UNITS // (self.key.interval * 1_000_000)

    def units_while(self, running_us: int, window_us: int) -> int:
        """Return what it wants, in units, if it asks only in slots since which a clock has moved."""
        interval_us = self.key.interval * 1_000_000
        return self.requests * min(window_us, running_us + interval_us) * UNITS // interval_us


def key_of(job: PollJob | Target) -> ClassKey:
    """Return the class that a job belongs to: what decides its slots too (prices/ledger/grid.py)."""
    return ClassKey(job.provider or "", job.interval, tuple(sorted(job.symbols)))


def demand_of(key: ClassKey, provider: str, *, jobs: int = 1) -> Demand:
    """Return the demand of a class of jobs on the provider."""
    return Demand(key, _requests(provider, key.symbols, asks_singly(provider)), jobs)


def load_demands(provider: str) -> dict[ClassKey, Demand]:
    """Return what the active jobs of a provider want, by class. One query."""
    rows = (
        PollJob.objects.filter(status=JobStatus.ACTIVE, periodic_task__enabled=True)
        .filter(Q(provider=provider) | Q(provider=None))
        .values_list("provider", "served_by", "interval", "symbols")
    )
    counts = Counter(_keys_for(provider, rows))
    return {key: demand_of(key, provider, jobs=jobs) for key, jobs in counts.items()}


def _keys_for(
    provider: str, rows: Iterable[tuple[str | None, str | None, int, list[str]]]
) -> Iterable[ClassKey]:
    # Who is asked for a job without a provider follows from these two alone; asked once, and not for each.
    chosen: dict[tuple[str | None, bool], str] = {}
    for named, served_by, interval, symbols in rows:
        simulated = is_simulated(symbols[0])
        if named is None and (served_by, simulated) not in chosen:
            chosen[served_by, simulated] = provider_for(symbols, served_by=served_by)
        if named is not None or chosen[served_by, simulated] == provider:
            yield ClassKey(named or "", interval, tuple(sorted(symbols)))


@lru_cache(maxsize=20_000)
def _requests(provider: str, symbols: tuple[str, ...], singly: bool) -> int:
    return len(get_provider(provider).plan(symbols, singly=singly))
