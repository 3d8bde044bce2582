"""manage.py quota: what providers' budgets are, and what jobs get of them."""

from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import msgspec
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from rich.console import Console
from rich.table import Table

from prices.quota import NotConfigured, QuotaPlan, figure, plain_plan
from prices.quota.overview import BudgetUse, JobUse, Overview, read_overview
from providers.registry import PROVIDER_NAMES, UnknownProviderError, normalise_name

# A screen of jobs; they are in order, so that these are the ones that lack most.
SHOWN_JOBS = 40
# Wide enough for the tables, where output goes to a file.
WIDTH = 120


class Command(BaseCommand):
    help = (
        "Show the providers' request budgets, and how much of what they want active jobs get."
        " Exit 0: shown, 2: wrong usage."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take a provider and the form of the answer."""
        parser.add_argument("--provider", help="Show this provider alone.")
        parser.add_argument("--json", action="store_true", help="Answer in JSON, with every job.")

    def handle(self, *, provider: str | None, json: bool, **options: Any) -> None:
        """Read and show."""
        try:
            names = PROVIDER_NAMES if provider is None else (normalise_name(provider),)
        except UnknownProviderError as error:
            raise CommandError(f"--provider: {error}", returncode=2) from error
        overview = read_overview(names, now=timezone.now())
        if json:
            self.stdout.write(msgspec.json.encode(_plain(overview)).decode())
        else:
            self._show(overview)

    def _show(self, overview: Overview) -> None:
        width = None if self.stdout.isatty() else WIDTH
        console = Console(file=self.stdout, width=width, markup=False, highlight=False, emoji=False)  # type: ignore[arg-type]  # has all that rich calls
        console.print("Requests in the window of each limit; jobs share what the tightest leaves them.")
        console.print(_budget_table(overview.budgets))
        console.print()
        if not overview.jobs:
            console.print("No active jobs.")
            return
        console.print(_job_table(overview.jobs[:SHOWN_JOBS]))
        if any(isinstance(job.plan, QuotaPlan) and job.plan.market_hours_only for job in overview.jobs):
            console.print("* while its markets are open, and not at all while they are closed")
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
    table = Table("provider", "budget", box=None, pad_edge=False)
    for name in ("used", "jobs", "for jobs", "jobs want"):
        table.add_column(name, justify="right")
    table.add_column("")
    for use in budgets:
        shares = ("all", "-") if use.for_jobs is None else (f"{use.for_jobs:,}", f"{figure(use.wanted):,}")
        limits = "\n".join(use.limits) or "none"
        table.add_row(use.provider, limits, _used(use), f"{use.jobs:,}", *shares, _note(use))
    return table


def _used(use: BudgetUse) -> str:
    if use.windows is None:
        return "unknown"
    return "\n".join(f"{window.used:,} of {window.limit:,}" for window in use.windows) or "-"


def _note(use: BudgetUse) -> str:
    if use.missing_setting:
        return str(NotConfigured(use.provider, use.missing_setting))
    return use.unknown or ""


def _job_table(jobs: Sequence[JobUse]) -> Table:
    table = Table(box=None, pad_edge=False)
    # Whole, so that it can be copied.
    table.add_column("job", min_width=36, no_wrap=True)
    table.add_column("symbols", overflow="fold")
    table.add_column("provider", no_wrap=True)
    for name in ("wants/day", "gets/day", "asked each", "really each"):
        table.add_column(name, justify="right", no_wrap=True)
    for job in jobs:
        table.add_row(str(job.job_id), _short(job.symbols), job.provider, *_plan_cells(job))
    return table


def _plan_cells(job: JobUse) -> tuple[str, str, str, str]:
    plan = job.plan
    if isinstance(plan, NotConfigured):
        return "", "no key", f"{job.interval} s", "never"
    reached = "never" if plan.reached_interval is None else f"{plan.reached_interval} s"
    hours = " *" if plan.market_hours_only else ""
    wanted, granted = f"{figure(plan.wanted_per_day):,}", f"{figure(plan.granted_per_day):,}"
    return wanted, granted, f"{plan.interval} s", reached + hours


def _short(symbols: Sequence[str]) -> str:
    more = f" and {len(symbols) - 2} more" if len(symbols) > 2 else ""
    return ", ".join(symbols[:2]) + more
