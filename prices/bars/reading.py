"""Bars as they are now: what is stored, and what is newer made from points at once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby, islice
from math import ceil
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import Min, QuerySet

from prices.bars import statements
from prices.bars.making import HOUR, MINUTE, SETTLES_AFTER, days_of, minute_values
from prices.database.uuid7 import EPOCH
from prices.models import BarInterval, BarProgress, JobStatus, PollJob, PollRun, PriceBar, RunState
from prices.symbols import is_simulated
from providers.keys import SIMULATED
from providers.markets.days import day_over
from providers.registry import PROVIDER_NAMES

LENGTHS = {"1m": MINUTE, "5m": 5 * MINUTE, "1h": HOUR, "1d": timedelta(days=1)}
# Before the last run's time: a provider's times are behind the database's.
_NEWER_THAN = 3 * MINUTE
# Days begin by the clock of their exchange; no price is of a later one.
_NOTHING_AFTER = timedelta(days=2)
_OVER_IN_ANY_ZONE = timedelta(days=3)


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of one provider and one currency (empty: not told); `end` is where the next one may begin.

    `is_final`: it has been over for two minutes, and each slot that was due in it has its outcome. A point
    that comes later still changes it, and raises its revision; 0 while it is not stored.
    """

    start: datetime
    end: datetime
    provider: str
    currency: str
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    samples: int
    first_observed_at: datetime
    last_observed_at: datetime
    revision: int
    is_final: bool = False


def read_bars(
    symbol: str,
    interval: str,
    *,
    since: datetime,
    until: datetime,
    provider: str | None,
    limit: int,
    now: datetime,
) -> list[Bar]:
    """Return the bars of the first `limit` times that begin from `since` on and before `until`, in order.

    Each is of the named provider, or of the first of PROVIDER_ORDER that has samples in it; of several
    currencies each has its own. `interval` is 1m, 5m, 1h or 1d; the bars of days begin at the midnight in UTC
    of their date.
    """
    progress = BarProgress.objects.first()
    reading = _Reading(symbol, interval, progress, since=since, until=until, limit=limit, now=now)
    providers = _providers(symbol, provider)
    settled = _settled_until(symbol, progress, now=now)
    found: list[Bar] = []
    for _start, bars in islice(groupby(reading.bars(providers), key=lambda bar: bar.start), limit):
        of_start = list(bars)
        first = min((bar.provider for bar in of_start), key=providers.index)
        found += [replace(bar, is_final=bar.end <= settled) for bar in of_start if bar.provider == first]
    return found


def _providers(symbol: str, provider: str | None) -> list[str]:
    if provider is not None:
        return [provider]
    order = list(settings.PROVIDER_ORDER)
    # Those that are asked no longer come last.
    real = order + [name for name in PROVIDER_NAMES if name not in {*order, SIMULATED}]
    return [SIMULATED] if is_simulated(symbol) else real


def _settled_until(symbol: str, progress: BarProgress | None, *, now: datetime) -> datetime:
    """Return up to when all that was due for the symbol has its outcome, and is in the bars."""
    if progress is None or progress.backfill_from is not None:
        return EPOCH
    jobs = PollJob.objects.exclude(status=JobStatus.STOPPED).filter(symbols__contains=[symbol])
    waited_for = dict(jobs.values_list("id", "accounted_until"))
    claimed = PollRun.objects.filter(state=RunState.CLAIMED, job__in=waited_for)
    due: datetime | None = claimed.aggregate(first=Min("due_at"))["first"]
    until: datetime = min(now, progress.read_at, due or now, *waited_for.values())
    return until - SETTLES_AFTER


class _Reading:
    """One call: what is stored of it, and what is made of points and minutes since the last run."""

    def __init__(
        self,
        symbol: str,
        interval: str,
        progress: BarProgress | None,
        *,
        since: datetime,
        until: datetime,
        limit: int,
        now: datetime,
    ) -> None:
        self._symbol = symbol
        self._interval = interval
        # A bar that is told at all is told whole. Of a day the date counts, which is a midnight.
        length, latest = LENGTHS[interval], now + _NOTHING_AFTER
        self._since = _ceiling(min(since, latest), length)
        self._until = _ceiling(min(until, latest), length)
        self._limit = limit
        self._now = now
        # Without a run so far nothing is stored, and only what is new is made.
        read_at = now if progress is None else progress.read_at
        self._new_from = (read_at - _NEWER_THAN).replace(second=0, microsecond=0)
        self._hours_until = _floor(self._new_from, HOUR) if progress is None else progress.hours_until

    def bars(self, providers: Sequence[str]) -> list[Bar]:
        """Return the bars of all these providers, by their start."""
        if self._interval == "1d":
            bars = self._days(providers)
        else:
            length = LENGTHS[self._interval]
            open_from = self._hours_until if self._interval == "1h" else _floor(self._new_from, length)
            minutes = self._minutes(providers, since=max(open_from, self._since), until=self._until)
            made = [_as_of(bar, _floor(bar.start, length), length) for bar in minutes]
            bars = [*self._stored(providers, end=min(open_from, self._until)), *_joined(made)]
        return sorted(bars, key=lambda bar: bar.start)

    def _days(self, providers: Sequence[str]) -> list[Bar]:
        """Return the days: those that go on are made of their hours and of the minutes since."""
        stored = {_key(bar): bar for bar in self._stored(providers, end=self._until)}
        end_of_open = max(self._now, self._hours_until) + MINUTE
        for provider in providers:
            for _, _, begin, end, date in days_of(self._symbol, provider, self._hours_until, end_of_open):
                if self._since <= date < self._until:
                    parts = self._parts_of_day(provider, begin, end)
                    made = _joined(_as_of(bar, date, LENGTHS["1d"]) for bar in parts)
                    stored |= {_key(bar): bar for bar in made}
        return [self._with_its_end(bar) for bar in stored.values()]

    def _with_its_end(self, bar: Bar) -> Bar:
        """Return a day with the time at which it is over where that is; of old ones it does not matter."""
        if bar.start < self._now - _OVER_IN_ANY_ZONE:
            return bar
        end = day_over(self._symbol, provider=bar.provider, day=bar.start.date())
        return replace(bar, end=end)

    def _parts_of_day(self, provider: str, begin: datetime, end: datetime) -> list[Bar]:
        # Days begin within an hour where clocks differ from UTC by half an hour.
        first_hour = min(_floor(begin + HOUR - MINUTE, HOUR), end)
        hours_end = max(min(self._hours_until, end), first_hour)
        hours = self._table([provider], BarInterval.HOUR, since=first_hour, end=hours_end)
        return [
            *self._minutes([provider], since=begin, until=first_hour),
            *hours,
            *self._minutes([provider], since=hours_end, until=end),
        ]

    def _stored(self, providers: Sequence[str], *, end: datetime) -> list[Bar]:
        length = LENGTHS[self._interval]
        interval = BarInterval.MINUTE if self._interval == "5m" else BarInterval(self._interval)
        rows = self._rows(providers, interval, since=self._since, end=end)
        # So many times are in as many bars at least; what is beyond them is of the next page.
        times = self._limit * (length // LENGTHS[interval])
        beyond = rows.order_by("start").values_list("start", flat=True).distinct()[times : times + 1]
        for start in beyond:
            rows = rows.filter(start__lt=_floor(start, length))
        bars = self._bars(rows, interval)
        return bars if interval == self._interval else _joined(_part_of(bar, length) for bar in bars)

    def _minutes(self, providers: Sequence[str], *, since: datetime, until: datetime) -> list[Bar]:
        """Return the minutes of a time, the newest ones made of points."""
        stored_until = min(self._new_from, until)
        stored = self._table(providers, BarInterval.MINUTE, since=since, end=stored_until)
        begin, end = max(since, self._new_from), min(until, self._now + MINUTE)
        starts = [begin + number * MINUTE for number in range(max(ceil((end - begin) / MINUTE), 0))]
        series = [(provider, start) for provider in providers for start in starts]
        if not series:
            return stored
        with connection.cursor() as cursor:
            names, moments = map(list, zip(*series, strict=True))
            cursor.execute(statements.MINUTES, minute_values([self._symbol] * len(series), names, moments))
            return stored + [_made(row) for row in cursor.fetchall()]

    def _table(
        self, providers: Sequence[str], interval: BarInterval, *, since: datetime, end: datetime
    ) -> list[Bar]:
        return self._bars(self._rows(providers, interval, since=since, end=end), interval)

    def _rows(
        self, providers: Sequence[str], interval: BarInterval, *, since: datetime, end: datetime
    ) -> QuerySet[PriceBar]:
        return PriceBar.objects.filter(
            symbol=self._symbol, interval=interval, start__gte=since, start__lt=end, provider__in=providers
        )

    def _bars(self, rows: QuerySet[PriceBar], interval: BarInterval) -> list[Bar]:
        length = LENGTHS[interval]
        return [Bar(**row, end=row["start"] + length) for row in rows.order_by("start").values(*_COLUMNS)]


_COLUMNS = [each.name for each in fields(Bar) if each.name not in {"end", "is_final"}]


def _key(bar: Bar) -> tuple[datetime, str, str]:
    return bar.start, bar.provider, bar.currency


def _as_of(bar: Bar, start: datetime, length: timedelta) -> Bar:
    return replace(bar, start=start, end=start + length, revision=0)


def _part_of(minute: Bar, length: timedelta) -> Bar:
    """Return a stored minute as a part of a longer bar, with its revision."""
    start = _floor(minute.start, length)
    return replace(minute, start=start, end=start + length)


def _made(row: tuple[Any, ...]) -> Bar:
    """Return a bar of a row of MINUTES."""
    _symbol, _interval, start, provider, currency, *values = row
    names = ("open", "high", "low", "close", "samples", "first_observed_at", "last_observed_at")
    told = dict(zip(names, values, strict=True))
    return Bar(start=start, end=start + MINUTE, provider=provider, currency=currency, revision=0, **told)


def _joined(bars: Iterable[Bar]) -> list[Bar]:
    """Return one bar of those with the same start, provider and currency."""
    found: dict[tuple[datetime, str, str], Bar] = {}
    for bar in bars:
        other = found.get(_key(bar))
        found[_key(bar)] = bar if other is None else _join(other, bar)
    return list(found.values())


def _join(one: Bar, other: Bar) -> Bar:
    return replace(
        min([one, other], key=lambda bar: bar.first_observed_at),
        high=max(one.high, other.high),
        low=min(one.low, other.low),
        close=max([one, other], key=lambda bar: bar.last_observed_at).close,
        samples=one.samples + other.samples,
        last_observed_at=max(one.last_observed_at, other.last_observed_at),
        # Each starts at 1; 0 where one of them is not stored.
        revision=one.revision + other.revision - 1 if one.revision and other.revision else 0,
    )


def _floor(moment: datetime, length: timedelta) -> datetime:
    return moment - (moment - EPOCH) % length


def _ceiling(moment: datetime, length: timedelta) -> datetime:
    return moment + (EPOCH - moment) % length
