"""Jobs and their ledger as tables for people; times are UTC."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

from django.core.management.base import OutputWrapper
from rich.console import Console
from rich.table import Table

from prices.access.keys import key_state
from prices.jobs.blockers import blockers
from prices.ledger.reports import MissedRange, SlotCounts
from prices.models import ApiKey, PollJob, PollRun
from prices.quota import Plan, plan_in_words
from providers.rate_limits.limits import time_in_words

# Wide enough for the tables, where output goes to a file.
WIDTH = 120


def console_on(output: OutputWrapper) -> Console:
    """Return a console that writes tables as plain text: to a terminal in its width, else in 120 columns."""
    width = None if output.isatty() else WIDTH
    return Console(file=output, width=width, markup=False, highlight=False, emoji=False)  # type: ignore[arg-type]  # has all that rich calls


def job_table(jobs: Sequence[PollJob], ids: dict[UUID, str], *, now: datetime) -> Table:
    """Return the jobs, one a row, with the beginnings of their ids."""
    table = Table(box=None, pad_edge=False)
    # Whole, so that it can be copied.
    table.add_column("job", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("every", min_width=7)
    table.add_column("provider", no_wrap=True)
    table.add_column("symbols", overflow="fold", min_width=10)
    table.add_column("last good", justify="right", no_wrap=True, min_width=10)
    table.add_column("failed", justify="right", no_wrap=True)
    for job in jobs:
        interval = _with_units(time_in_words(job.interval)) + " *" * job.market_hours
        provider = job.provider or "any"
        success = _ago(job.last_success_at, now=now)
        cells = (ids[job.id], job.status, interval, provider, first_symbols(job.symbols), success)
        table.add_row(*cells, f"{job.failures:,}")
    return table


def detail_table(job: PollJob, plan: Plan | None, last_day: SlotCounts, *, now: datetime) -> Table:
    """Return all of a job, a line for each thing."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("job", str(job.id))
    table.add_row("status", job.status)
    table.add_row("symbols", ", ".join(job.symbols))
    hours = " in the hours of its markets" if job.market_hours else ""
    table.add_row("every", f"{time_in_words(job.interval)}{hours}")
    table.add_row("provider", job.provider or _chosen(job))
    table.add_row("created", _time_and_age(job.created_at, now=now))
    table.add_row("last poll", _time_and_age(job.last_run_at, now=now))
    table.add_row("last success", _time_and_age(job.last_success_at, now=now))
    table.add_row("last error", job.last_error or "none")
    table.add_row("failures", f"{job.failures:,} since the last success")
    table.add_row("kept back by", "\n".join(blockers(job, now=now)) or "nothing")
    table.add_row("budget gives", "-" if plan is None else plan_in_words(plan))
    table.add_row("last 24 h", "\n".join(_last_day(last_day)))
    return table


def key_table(keys: Sequence[ApiKey], *, now: datetime) -> Table:
    """Return API keys, one a row: whose, what each opens, until when, and when it was last used."""
    table = Table(box=None, pad_edge=False)
    table.add_column("client", overflow="fold")
    # Whole, so that it can be copied.
    table.add_column("key begins with", no_wrap=True)
    table.add_column("scopes", overflow="fold")
    table.add_column("state", overflow="fold")
    table.add_column("created", no_wrap=True)
    table.add_column("last used", justify="right", no_wrap=True)
    for key in keys:
        created = f"{key.created_at.astimezone(UTC):%Y-%m-%d}"
        used = _ago(key.last_used_at, now=now)
        table.add_row(
            key.client.name, key.prefix, ", ".join(key.scopes), key_state(key, now=now), created, used
        )
    return table


def run_table(runs: Sequence[PollRun]) -> Table:
    """Return runs, one a row."""
    table = Table(box=None, pad_edge=False)
    table.add_column("due", no_wrap=True)
    table.add_column("became", no_wrap=True)
    for name in ("late", "took", "prices"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("reason", overflow="fold")
    for run in runs:
        late = _length((run.started_at - run.due_at).total_seconds())
        took = "" if run.finished_at is None else _length((run.finished_at - run.started_at).total_seconds())
        table.add_row(_time(run.due_at), run.state, late, took, f"{run.points:,}", run.reason)
    return table


def missed_table(ranges: Sequence[MissedRange]) -> Table:
    """Return ranges of slots without a price, one a row."""
    table = Table(box=None, pad_edge=False)
    table.add_column("first slot", no_wrap=True)
    table.add_column("last slot", no_wrap=True, justify="right")
    table.add_column("slots", no_wrap=True, justify="right")
    table.add_column("what", no_wrap=True)
    table.add_column("reason", overflow="fold")
    for each in ranges:
        is_same_day = each.from_due.date() == each.to_due.date()
        last = f"{each.to_due:%H:%M:%S}" if is_same_day else _time(each.to_due)
        table.add_row(_time(each.from_due), last, f"{each.slots:,}", each.kind, each.reason)
    return table


def blocked_table(blocked: Mapping[str, Sequence[str]]) -> Table:
    """Return what keeps jobs back, by the beginnings of their ids."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, texts in blocked.items():
        table.add_row(name, "\n".join(texts))
    return table


def _last_day(counts: SlotCounts) -> Iterator[str]:
    if counts.success_rate is None:
        yield "no slots"
    else:
        # Rounded down: not all is never 100.
        yield f"{int(counts.success_rate * 1000) / 10} % of {counts.slots:,} slots got a price"
        yield (
            f"{counts.stored:,} stored, {counts.shared:,} shared, {counts.failed:,} failed,"
            f" {counts.skipped:,} skipped, {counts.in_gaps:,} in gaps"
        )
    if counts.market_closed:
        yield f"and {counts.market_closed:,} while its markets were closed"


def _chosen(job: PollJob) -> str:
    return f"any; {job.served_by} served last" if job.served_by else "any"


def _with_units(interval: str) -> str:
    # A line never begins with a unit.
    return re.sub("([0-9]) ", "\\1\u00a0", interval)


def first_symbols(symbols: Sequence[str]) -> str:
    """Return the first two of a job's symbols, and how many more there are."""
    more = f" and {len(symbols) - 2} more" if len(symbols) > 2 else ""
    return ", ".join(symbols[:2]) + more


def _ago(moment: datetime | None, *, now: datetime) -> str:
    if moment is None:
        return "never"
    # Its largest unit tells enough: 2 h, not 2 h 14 min 3 s.
    words = time_in_words(max(int((now - moment).total_seconds()), 0)).split()
    return f"{' '.join(words[:2])} ago"


def _time_and_age(moment: datetime | None, *, now: datetime) -> str:
    return "never" if moment is None else f"{_time(moment)} ({_ago(moment, now=now)})"


def _length(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 60 else time_in_words(round(seconds))


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"
