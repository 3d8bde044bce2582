"""manage.py quota: what providers' budgets are, and what jobs get of them."""

from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict
from math import ceil
from typing import Any

import msgspec
from django.core.management.base import BaseCommand, CommandError
from rich.table import Table

from prices.clock import database_now
from prices.management.examples import add_examples
from prices.management.tables import console_on, first_symbols
from prices.quota import NotConfigured, QuotaPlan, figure, plain_plan
from prices.quota.overview import BudgetUse, JobUse, Overview, read_overview
from providers.rate_limits.budget import limits_of
from providers.rate_limits.limits import Limit, binding_limit, time_in_words, window_in_words
from providers.registry import PROVIDER_NAMES, UnknownProviderError, normalise_name

# A screen of jobs; they are in order, so that these are the ones that lack most.
SHOWN_JOBS = 40
UNKNOWN = "unknown: Redis has no counts; they are taken from the tables when the provider is asked next"


class Command(BaseCommand):
    help = (
        "Show the providers' request budgets, and how much of what they want active jobs get."
        " used: requests in the second, minute or day that ends now, whoever asked; unknown: Redis has no"
        " counts, which are taken from the tables when the provider is asked next. for jobs: what active jobs"
        " share of the tightest limit, jobs want: what they would send in the same time. wants/day, gets/day:"
        " requests of a job. asked every, really every: the job's interval, and the time between two requests"
        " for each of its symbols. Exit 0: shown, 2: wrong usage."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take a provider and the form of the answer."""
        add_examples(parser, "quota", "quota --provider alpha_vantage")
        parser.add_argument("--provider", help="Show this provider alone.")
        parser.add_argument("--json", action="store_true", help="Answer in JSON, with every job.")

    def handle(self, *, provider: str | None, json: bool, **options: Any) -> None:
        """Read and show."""
        try:
            names = PROVIDER_NAMES if provider is None else (normalise_name(provider),)
        except UnknownProviderError as error:
            raise CommandError(f"--provider: {error}", returncode=2) from error
        overview = read_overview(names, now=database_now())
        if json:
            self.stdout.write(msgspec.json.encode(_plain(overview)).decode())
        else:
            self._show(overview)

    def _show(self, overview: Overview) -> None:
        console = console_on(self.stdout)
        console.print(
            "All figures are requests. Active jobs share the tightest limit, but for GET latest's part."
        )
        console.print(_budget_table(overview.budgets))
        console.print("used: in the second, minute or day that ends now, whoever asked")
        if any(use.windows is None for use in overview.budgets):
            console.print(UNKNOWN)
        console.print()
        if not overview.jobs:
            console.print("No active jobs.")
            return
        console.print(_job_table(overview.jobs[:SHOWN_JOBS]))
        if any(isinstance(job.plan, QuotaPlan) and job.plan.market_hours_only for job in overview.jobs):
            console.print("* while the job's markets are open, and not at all while they are closed")
        left = len(overview.jobs) - SHOWN_JOBS
        if left > 0:
            console.print(f"and {left:,} more jobs, which get at least as much; --json lists all")


def _plain(overview: Overview) -> dict[str, Any]:
    return {
        "budgets": [asdict(use) | {"wanted": figure(use.wanted)} for use in overview.budgets],
        "jobs": [_plain_job(job) for job in overview.jobs],
    }


def _plain_job(job: JobUse) -> dict[str, Any]:
    fixed = {"job_id": str(job.job_id), "symbols": job.symbols, "provider": job.provider}
    return fixed | {"interval": job.interval} | plain_plan(job.plan)


def _budget_table(budgets: Sequence[BudgetUse]) -> Table:
    table = Table("provider", "limit", box=None, pad_edge=False)
    for name in ("used", "active jobs", "for jobs", "jobs want"):
        table.add_column(name, justify="right")
    table.add_column("")
    for use in budgets:
        limits = "\n".join(_limit(limit) for limit in limits_of(use.provider)) or "none"
        table.add_row(use.provider, limits, _used(use), f"{use.jobs:,}", *_shares(use), _note(use))
    return table


def _limit(limit: Limit) -> str:
    return f"{limit.requests:,} {window_in_words(limit)}"


def _shares(use: BudgetUse) -> tuple[str, str]:
    limit = binding_limit(limits_of(use.provider))
    if limit is None or use.for_jobs is None:
        return "all", "-"
    window = window_in_words(limit)
    return f"{use.for_jobs:,} {window}", f"{figure(use.wanted):,} {window}"


def _used(use: BudgetUse) -> str:
    if use.windows is None:
        return "unknown"
    return "\n".join(f"{window.used:,} of {window.limit:,}" for window in use.windows) or "-"


def _note(use: BudgetUse) -> str:
    if use.missing_setting:
        return str(NotConfigured(use.provider, use.missing_setting))
    singly = "each symbol takes a request: calls for several are refused just now" if use.asks_singly else ""
    held_s = ceil(use.held_for_s)
    held = f"rate limited: nothing is sent for another {time_in_words(held_s)}" if held_s else ""
    rests_s = ceil(use.rests_for_s)
    rests = f"its breaker is open: nothing is sent for another {time_in_words(rests_s)}" if rests_s else ""
    return "\n".join(filter(None, (use.unknown, held, rests, singly)))


def _job_table(jobs: Sequence[JobUse]) -> Table:
    table = Table(box=None, pad_edge=False)
    # Whole, so that it can be copied.
    table.add_column("job", min_width=36, no_wrap=True)
    table.add_column("symbols", overflow="fold")
    table.add_column("provider", no_wrap=True)
    for name in ("wants/day", "gets/day", "asked every", "really every"):
        table.add_column(name, justify="right", no_wrap=True)
    for job in jobs:
        table.add_row(str(job.job_id), first_symbols(job.symbols), job.provider, *_plan_cells(job))
    return table


def _plan_cells(job: JobUse) -> tuple[str, str, str, str]:
    plan = job.plan
    if isinstance(plan, NotConfigured):
        return "", "no key", time_in_words(job.interval), "never"
    reached = "never" if plan.effective_interval is None else time_in_words(plan.effective_interval)
    hours = " *" if plan.market_hours_only else ""
    wanted, granted = f"{figure(plan.wanted_per_day):,}", f"{figure(plan.granted_per_day):,}"
    return wanted, granted, time_in_words(plan.interval), reached + hours
