"""What the page of a job shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from prices.jobs.services import provider_of
from prices.ledger.reports import MissedRange, SlotCounts, count_last_day, missed_slots
from prices.models import PollJob
from prices.pages.jobs.rows import SymbolRow, read_points, really_in_words, symbol_rows
from prices.pages.jobs.strips import Strip, strips_of
from prices.quota import all_blockers, plan_in_words, plan_of_active
from providers.rate_limits.limits import time_in_words

GAPS = 50
GAPS_WITHIN = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Details:
    """A job; `plan` says what its budget gives it, `blockers` what keeps it from polling as asked."""

    job: PollJob
    now: datetime
    provider: str
    interval: str
    really: str | None
    plan: str | None
    blockers: Sequence[str]
    symbols: Sequence[SymbolRow]
    strip: Strip
    last_day: SlotCounts
    gaps: Sequence[MissedRange]
    more_gaps: bool


def read_details(job: PollJob, *, now: datetime) -> Details:
    """Return what is known of a job, with its gaps of the last day, newest first."""
    plan = plan_of_active(job, now=now)
    gaps = missed_slots(job, since=now - GAPS_WITHIN, until=now, limit=GAPS + 1)
    return Details(
        job=job,
        now=now,
        provider=provider_of(job),
        interval=time_in_words(job.interval),
        really=really_in_words(job, now=now),
        plan=None if plan is None else plan_in_words(plan),
        blockers=all_blockers(job, plan, now=now),
        symbols=symbol_rows(job, job.symbols, read_points(job.symbols, now=now), now=now),
        strip=strips_of([job.id], now=now)[job.id],
        last_day=count_last_day(job, now=now),
        gaps=gaps[:GAPS],
        more_gaps=len(gaps) > GAPS,
    )
