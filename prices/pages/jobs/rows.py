"""What the list of jobs shows of each."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from prices.access.rights import Access
from prices.jobs.listing import select_jobs
from prices.jobs.services import provider_of
from prices.latest.stored import last_points_of_week
from prices.models import JobStatus, PollJob, PricePoint
from prices.pages.jobs.strips import Strip, strips_of
from prices.pages.quotes import Quote, quote_of
from prices.quota import NotConfigured, QuotaPlan, plan_of_active
from providers.rate_limits.limits import time_in_words

ROWS = 25
# Of a job with more of them the others are on its page.
SYMBOLS_SHOWN = 3
GOING_ON = (JobStatus.ACTIVE.value, JobStatus.PAUSED.value)


@dataclass(frozen=True, slots=True)
class SymbolRow:
    """A symbol of a job; `quote` is its last price of the week by who is asked, None where there is none."""

    symbol: str
    quote: Quote | None


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job on the list; `really` says how often its symbols are asked for where that is not as asked."""

    job: PollJob
    provider: str
    interval: str
    really: str | None
    symbols: Sequence[SymbolRow]
    others: int
    strip: Strip


@dataclass(frozen=True, slots=True)
class JobList:
    """A page of jobs, newest first; `next_before` begins the next page, None on the last one."""

    rows: Sequence[JobRow]
    next_before: UUID | None


def read_jobs(
    *, statuses: Sequence[str], symbol: str | None, before: UUID | None, now: datetime, access: Access
) -> JobList:
    """Return the jobs of these statuses that poll the symbol, those before an id.

    Four queries, and those of the plans: some for each provider, none for each job.
    """
    jobs = select_jobs(statuses=statuses, symbol=symbol, access=access).order_by("-id")
    if before is not None:
        jobs = jobs.filter(id__lt=before)
    found = list(jobs[: ROWS + 1])
    shown = found[:ROWS]
    strips = strips_of([job.id for job in shown], now=now)
    points = read_points((each for job in shown for each in job.symbols[:SYMBOLS_SHOWN]), now=now)
    rows = [_row(job, strips[job.id], points, now=now) for job in shown]
    return JobList(rows, shown[-1].id if len(found) > ROWS else None)


def symbol_rows(
    job: PollJob, symbols: Sequence[str], points: Mapping[str, Sequence[PricePoint]], *, now: datetime
) -> list[SymbolRow]:
    """Return these symbols of a job with their last prices by the provider that it names, or by any."""
    return [SymbolRow(symbol, _quote(job, points[symbol], now=now)) for symbol in symbols]


def read_points(symbols: Iterable[str], *, now: datetime) -> dict[str, Sequence[PricePoint]]:
    """Return the last points of the week of each symbol, newest first."""
    wanted = list(dict.fromkeys(symbols))
    return last_points_of_week(wanted, now=now) if wanted else {}


def really_in_words(job: PollJob, *, now: datetime) -> str | None:
    """Say how often an active job is polled where its budget or a key does not let it poll as asked."""
    plan = plan_of_active(job, now=now)
    if isinstance(plan, NotConfigured):
        return f"never: {plan}"
    if not isinstance(plan, QuotaPlan) or plan.in_full:
        return None
    if plan.effective_interval is None:
        return "never: nothing is left of the budget"
    hours = " in market hours" if plan.market_hours_only else ""
    return f"really every {time_in_words(plan.effective_interval)}{hours}"


def _row(job: PollJob, strip: Strip, points: Mapping[str, Sequence[PricePoint]], *, now: datetime) -> JobRow:
    return JobRow(
        job=job,
        provider=provider_of(job),
        interval=time_in_words(job.interval),
        really=really_in_words(job, now=now),
        symbols=symbol_rows(job, job.symbols[:SYMBOLS_SHOWN], points, now=now),
        others=max(len(job.symbols) - SYMBOLS_SHOWN, 0),
        strip=strip,
    )


def _quote(job: PollJob, points: Sequence[PricePoint], *, now: datetime) -> Quote | None:
    point = next((each for each in points if job.provider in {None, each.provider}), None)
    return None if point is None else quote_of(point, None, now=now)
