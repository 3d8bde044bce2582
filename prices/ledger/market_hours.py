"""Which slots of a job with `market_hours` are polled, and of which symbols.

A slot is a symbol's if at any moment since the slot before its market was open, or had closed less than an
hour ago (providers/markets/polling_hours.py). So the first slot after that hour is the last one, however long
the interval is, and has the session's last price. A symbol whose market always trades or is not known is
polled at each slot. All follows from the job's row and the calendars, so that beat, workers and the accounts
agree.

Until `market_hours_from` no slot is left out: a new job has its first price at any hour.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from prices.database.uuid7 import EPOCH, epoch_ms
from prices.ledger.ranges import SlotRange, merge_terms, split_by_terms
from prices.models import PollJob
from prices.models.poll_job import MAX_INTERVAL_S
from providers.markets.calendars import ALWAYS_OPEN, calendar_of
from providers.markets.polling_hours import polling_hours
from providers.registry import PROVIDER_NAMES

Calendars = frozenset[str]

# Hours are made week by week.
WEEK_MS = 7 * 86_400_000

_MILLISECOND = timedelta(milliseconds=1)
_MICROSECOND = timedelta(microseconds=1)
# A slot looks back as far as the one before it, and no exchange rests for so long as is looked ahead.
_BEFORE_MS = MAX_INTERVAL_S * 1000
_AHEAD_MS = 3 * WEEK_MS


@dataclass(frozen=True, slots=True)
class PollingHours:
    """The stretches of some weeks in which markets are worth asking, in order and apart.

    In ms since the epoch, as all times here. They answer for slots from `since` on and before `until`.
    """

    since: int
    until: int
    opens: Sequence[int]
    closes: Sequence[int]

    def have_slot(self, due: int, interval: int) -> bool:
        """Return whether a slot is polled, `interval` after the one before it."""
        last = bisect_right(self.opens, due) - 1
        return last >= 0 and due - interval < self.closes[last]

    def next_slot(self, due: int, interval: int) -> int:
        """Return the first slot after `due` that is polled, or a later one where none is known."""
        following = due + interval
        if self.have_slot(following, interval):
            return following
        place = bisect_right(self.opens, following)
        opens = self.opens[place] if place < len(self.opens) else max(following, self.until + _AHEAD_MS)
        return following - (following - opens) // interval * interval


@dataclass(frozen=True, slots=True)
class JobHours:
    """The hours of a job: those of its markets together, for slots after `since`."""

    calendars: Calendars
    since: datetime

    def have_slot(self, due_at: datetime, interval: int) -> bool:
        """Return whether the job is polled at a slot; interval in seconds."""
        return due_at <= self.since or _has_slot(self.calendars, due_at, interval)

    def split(self, slots: SlotRange) -> Iterator[tuple[SlotRange, bool]]:
        """Yield the range in parts, in order: those that are polled, and those that are left out."""
        found = polling_hours(self.calendars, start=slots.first - slots.step, end=slots.last)
        if found is None:
            yield slots, True
            return
        # A stretch's last slot is the first one at its end or later.
        stretches = [(opens, closes + slots.step - _MICROSECOND) for opens, closes in found]
        yield from split_by_terms(slots, merge_terms([(EPOCH, self.since), *stretches]))


def hours_of(job: Any) -> JobHours | None:
    """Return a job's hours; None where it is polled at each slot. It has the columns of a PollJob."""
    if not job.market_hours or job.market_hours_from is None:
        return None
    calendars = calendars_of(tuple(job.symbols), provider=job.provider)
    return None if calendars is None else JobHours(calendars, job.market_hours_from)


def is_polled_at(job: PollJob, due_at: datetime) -> bool:
    """Return whether the job is polled at a slot: any of its symbols is."""
    hours = hours_of(job)
    return hours is None or hours.have_slot(due_at, job.interval)


def symbols_at(job: PollJob, due_at: datetime) -> list[str]:
    """Return the symbols that the job is polled for at a slot, in its order."""
    if not job.market_hours or job.market_hours_from is None or due_at <= job.market_hours_from:
        return list(job.symbols)
    alone = ((symbol, calendars_of((symbol,), provider=job.provider)) for symbol in job.symbols)
    return [
        symbol
        for symbol, calendars in alone
        if calendars is None or _has_slot(calendars, due_at, job.interval)
    ]


def next_polled_slot(job: PollJob, due_at: datetime) -> datetime:
    """Return the first slot after this one at which the job is polled."""
    hours, interval = hours_of(job), timedelta(seconds=job.interval)
    if hours is None or due_at + interval <= hours.since:
        return due_at + interval
    found = hours_at(hours.calendars, epoch_ms(due_at))
    if found is None:
        return due_at + interval
    return EPOCH + found.next_slot(epoch_ms(due_at), interval // _MILLISECOND) * _MILLISECOND


@lru_cache(maxsize=20_000)
def calendars_of(symbols: tuple[str, ...], *, provider: str | None) -> Calendars | None:
    """Return the calendars of the symbols' markets; None where any always trades, or is not known.

    Where no provider is named, a symbol is as those write it who know it: who is asked may change.
    """
    found = {_calendar_of(symbol, provider) for symbol in symbols}
    return None if None in found else frozenset(filter(None, found))


@lru_cache(maxsize=50_000)
def _calendar_of(symbol: str, provider: str | None) -> str | None:
    names = PROVIDER_NAMES if provider is None else [provider]
    found = {calendar_of(symbol, provider=name) for name in names} - {None}
    return found.pop() if len(found) == 1 and ALWAYS_OPEN not in found else None


def hours_at(calendars: Calendars, moment: int) -> PollingHours | None:
    """Return the hours that answer for slots of this moment; None where any market's are not known.

    The first call for an exchange and a year takes 0.1 to 0.3 s, the first of a process 1 s more.
    """
    return _hours_of_week(calendars, moment // WEEK_MS)


@lru_cache(maxsize=2_000)
def _hours_of_week(calendars: Calendars, week: int) -> PollingHours | None:
    since, until = week * WEEK_MS, (week + 1) * WEEK_MS
    start, end = (EPOCH + at * _MILLISECOND for at in (since - _BEFORE_MS, until + _AHEAD_MS))
    found = polling_hours(calendars, start=start, end=end)
    if found is None:
        return None
    opens, closes = ([epoch_ms(stretch[side]) for stretch in found] for side in (0, 1))
    return PollingHours(since, until, opens, closes)


def _has_slot(calendars: Calendars, due_at: datetime, interval: int) -> bool:
    due = epoch_ms(due_at)
    hours = hours_at(calendars, due)
    return hours is None or hours.have_slot(due, interval * 1000)
