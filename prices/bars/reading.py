"""Bars as they are now: what is stored, and what is newer made from points at once."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from itertools import groupby, islice
from math import ceil

from django.conf import settings
from django.db import connection
from django.db.models import Aggregate, F, Min, QuerySet, TextField

from prices.bars import statements
from prices.bars.joining import Bar, as_of, ceiling, floor, joined, key_of, made_of, part_of
from prices.bars.making import HOUR, MINUTE, SETTLES_AFTER, SeriesDay, days_of, minute_values
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


def bars_version(
    symbol: str,
    interval: str,
    *,
    since: datetime,
    until: datetime,
    provider: str | None,
    limit: int,
    now: datetime,
) -> str | None:
    """Return a text that is another one where one of these bars has changed, without reading them.

    None where one may not be final: what is made of points as it is read, and `is_final`, change with time
    alone.
    """
    progress = BarProgress.objects.first() if until < now - SETTLES_AFTER else None
    if progress is None:
        return None
    reading = _Reading(symbol, interval, progress, since=since, until=until, limit=limit, now=now)
    providers, settled = _providers(symbol, provider), _settled_until(symbol, progress, now=now)
    return reading.version(providers) if reading.is_over(providers, settled=settled) else None


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
        self._since = ceiling(min(since, latest), length)
        self._until = ceiling(min(until, latest), length)
        self._limit = limit
        self._now = now
        # Without a run so far nothing is stored, and only what is new is made.
        read_at = now if progress is None else progress.read_at
        self._new_from = (read_at - _NEWER_THAN).replace(second=0, microsecond=0)
        self._hours_until = floor(self._new_from, HOUR) if progress is None else progress.hours_until

    def bars(self, providers: Sequence[str]) -> list[Bar]:
        """Return the bars of all these providers, by their start."""
        if self._interval == "1d":
            bars = self._days(providers)
        else:
            length, open_from = LENGTHS[self._interval], self._open_from()
            minutes = self._minutes(providers, since=max(open_from, self._since), until=self._until)
            made = [as_of(bar, floor(bar.start, length), length) for bar in minutes]
            bars = [*self._stored(providers, end=min(open_from, self._until)), *joined(made)]
        return sorted(bars, key=lambda bar: bar.start)

    def is_over(self, providers: Sequence[str], *, settled: datetime) -> bool:
        """Return whether all these bars are stored and final."""
        if self._interval == "1d":
            # They end by the clock of their exchange.
            goes_on = any(date < self._until for *_, date in self._open_days(providers))
            return self._until + _NOTHING_AFTER <= settled and not goes_on
        return self._until <= min(settled, self._open_from())

    def version(self, providers: Sequence[str]) -> str:
        """Return a text that is another one where one of the stored bars has changed."""
        _, rows = self._stored_rows(providers, end=self._until)
        found = rows.order_by().aggregate(digest=_Digest(F("start")))["digest"]
        # Of several providers the first in their order is told.
        return f"{','.join(providers)} {found}"

    def _open_from(self) -> datetime:
        """Return from when on bars are made as they are read; not of days."""
        length = LENGTHS[self._interval]
        return self._hours_until if self._interval == "1h" else floor(self._new_from, length)

    def _open_days(self, providers: Sequence[str]) -> Iterator[SeriesDay]:
        """Yield the days that go on."""
        end = max(self._now, self._hours_until) + MINUTE
        for provider in providers:
            yield from days_of(self._symbol, provider, self._hours_until, end)

    def _days(self, providers: Sequence[str]) -> list[Bar]:
        """Return the days: those that go on are made of their hours and of the minutes since."""
        stored = {key_of(bar): bar for bar in self._stored(providers, end=self._until)}
        for _, provider, begin, end, date in self._open_days(providers):
            if self._since <= date < self._until:
                parts = self._parts_of_day(provider, begin, end)
                made = joined(as_of(bar, date, LENGTHS["1d"]) for bar in parts)
                stored |= {key_of(bar): bar for bar in made}
        return [self._with_its_end(bar) for bar in stored.values()]

    def _with_its_end(self, bar: Bar) -> Bar:
        """Return a day with the time at which it is over where that is; of old ones it does not matter."""
        if bar.start < self._now - _OVER_IN_ANY_ZONE:
            return bar
        end = day_over(self._symbol, provider=bar.provider, day=bar.start.date())
        return replace(bar, end=end)

    def _parts_of_day(self, provider: str, begin: datetime, end: datetime) -> list[Bar]:
        # Days begin within an hour where clocks differ from UTC by half an hour.
        first_hour = min(floor(begin + HOUR - MINUTE, HOUR), end)
        hours_end = max(min(self._hours_until, end), first_hour)
        hours = self._table([provider], BarInterval.HOUR, since=first_hour, end=hours_end)
        return [
            *self._minutes([provider], since=begin, until=first_hour),
            *hours,
            *self._minutes([provider], since=hours_end, until=end),
        ]

    def _stored(self, providers: Sequence[str], *, end: datetime) -> list[Bar]:
        interval, rows = self._stored_rows(providers, end=end)
        bars = self._bars(rows, interval)
        return bars if interval == self._interval else joined(part_of(bar, LENGTHS["5m"]) for bar in bars)

    def _stored_rows(
        self, providers: Sequence[str], *, end: datetime
    ) -> tuple[BarInterval, QuerySet[PriceBar]]:
        """Return the rows that the stored bars are made of, and of which interval they are."""
        length = LENGTHS[self._interval]
        interval = BarInterval.MINUTE if self._interval == "5m" else BarInterval(self._interval)
        rows = self._rows(providers, interval, since=self._since, end=end)
        # So many times are in as many bars at least; what is beyond them is of the next page.
        times = self._limit * (length // LENGTHS[interval])
        beyond = rows.order_by("start").values_list("start", flat=True).distinct()[times : times + 1]
        for start in beyond:
            rows = rows.filter(start__lt=floor(start, length))
        return interval, rows

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
            return stored + [made_of(row) for row in cursor.fetchall()]

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


class _Digest(Aggregate):
    """The versions of rows of price_bars: which they are, and the transaction that wrote each as it is."""

    template = """
        encode(sha256(convert_to(string_agg(concat_ws(' ', start, provider, currency, xmin), ','
                                            ORDER BY %(expressions)s, provider, currency), 'UTF8')), 'hex')
    """
    output_field = TextField()


_COLUMNS = [each.name for each in fields(Bar) if each.name not in {"end", "is_final"}]
