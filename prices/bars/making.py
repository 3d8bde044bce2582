"""Points become bars: what came since the last run, late and corrected points too.

Each point has the transaction that stored it. A run reads the points of all transactions that had ended when
it began, from where the run before left off, so it leaves none out however late one is committed; the minutes
that they changed are made anew, and noted as done in the same transaction.
"""

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, TypeVar
from uuid import UUID

import structlog
from django.db import connection, transaction
from django.db.models import Min

from prices.bars import statements
from prices.clock import database_now
from prices.database.advisory_locks import try_advisory_lock
from prices.database.uuid7 import CLOCKS_AGREE_WITHIN, first_id_at
from prices.models import BarInterval, BarProgress, PriceBar, PricePoint
from providers.markets.days import days_between
from providers.markets.hours import MarketState, market_hours

log = structlog.get_logger(__name__)

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
# A bar that is over by so much is settled: what changes it then raises its revision.
SETTLES_AFTER = timedelta(minutes=2)
# At once, in one transaction; the rest follows in the next one.
TRANSACTIONS_AT_ONCE = 20_000
POINTS_AT_ONCE = 50_000
BARS_AT_ONCE = 2_000
# It is called each ten seconds.
BUSY_FOR_S = 8.0
LAST_ID = UUID(int=(1 << 128) - 1)
_LOCK = "make bars"

# Symbol, provider, when the day begins and ends, and the midnight in UTC of its date.
SeriesDay = tuple[str, str, datetime, datetime, datetime]
_Series = TypeVar("_Series", tuple[str, str, datetime], SeriesDay)


@dataclass(frozen=True, slots=True)
class Changed:
    """A minute in which samples of a series have come or changed, or the time of a price of a day."""

    symbol: str
    provider: str
    of_day: bool
    minute: datetime


def make_bars() -> int:
    """Make the bars of all points that were committed before this call; return how many minutes changed.

    Where there are many, the next call goes on with them after BUSY_FOR_S: a worker that is to end waits no
    longer. One process does so at a time; a call beside it returns 0.
    """
    changed = 0
    with try_advisory_lock(_LOCK) as lock:
        is_done, busy_until = False, time.monotonic() + BUSY_FOR_S
        while lock and not is_done and time.monotonic() < busy_until:
            with transaction.atomic():
                made, is_done = _make_next()
                changed += made
    return changed


def _make_next() -> tuple[int, bool]:
    """Make the next bars; return how many minutes changed, and whether there is nothing more to do."""
    now = database_now()
    progress = BarProgress.objects.select_for_update().first() or _begin(now)
    # Of a clock that was ahead and is set back: these hours are still to end.
    progress.hours_until = min(progress.hours_until, _hour_of(now))
    horizon = _horizon()
    end = min(horizon, progress.position + TRANSACTIONS_AT_ONCE)
    changed = _changed(statements.OF_TRANSACTIONS, position=progress.position, horizon=end)
    if progress.backfill_from is not None:
        changed += _backfill(progress, progress.backfill_from)
    _store(changed, hours_until=progress.hours_until, now=now)
    _store_hours(progress, now=now)
    progress.position = end
    if end == horizon:
        progress.read_at = now
    progress.save()
    return len(changed), end == horizon and progress.backfill_from is None


def _begin(now: datetime) -> BarProgress:
    first = PricePoint.objects.order_by("id").values_list("id", flat=True).first()
    return BarProgress(position=_horizon(), read_at=now, hours_until=_hour_of(now), backfill_from=first)


def _horizon() -> int:
    """Return the first transaction that may not have ended."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT (pg_snapshot_xmin(pg_current_snapshot())::text)::bigint")
        (horizon,) = cursor.fetchone()
    return int(horizon)


def _backfill(progress: BarProgress, first: UUID) -> list[Changed]:
    """Return what the next points of before the first run have changed."""
    ids = PricePoint.objects.filter(id__gte=first).order_by("id").values_list("id", flat=True)
    progress.backfill_from = next(iter(ids[POINTS_AT_ONCE : POINTS_AT_ONCE + 1]), None)
    return _changed(statements.OF_IDS, first=first, end=progress.backfill_from or LAST_ID)


def _changed(where: str, **bounds: Any) -> list[Changed]:
    with connection.cursor() as cursor:
        cursor.execute(statements.CHANGED.format(where=where), bounds)
        return [Changed(*row) for row in cursor.fetchall()]


def _store(changed: Sequence[Changed], *, hours_until: datetime, now: datetime) -> None:
    minutes = {(each.symbol, each.provider, each.minute) for each in changed if not each.of_day}
    for some in _batches(minutes):
        _write(BarInterval.MINUTE, statements.MINUTES, _minutes(some), now=now)
    # Later hours are made once they are over, and their days with them.
    late = [each for each in changed if each.minute < hours_until or each.of_day]
    _store_longer([(each.symbol, each.provider, each.minute) for each in late], now=now)


def _store_hours(progress: BarProgress, *, now: datetime) -> None:
    """Make the hours that are over, and the days that they are in."""
    minutes = PriceBar.objects.filter(interval=BarInterval.MINUTE)
    end = max(_hour_of(now - SETTLES_AFTER), progress.hours_until)
    while progress.hours_until < end:
        left = minutes.filter(start__gte=progress.hours_until, start__lt=end)
        # Where there was nothing for weeks it is not looked at hour by hour.
        first = left.aggregate(first=Min("start"))["first"]
        if first is None:
            progress.hours_until = end
            break
        hour = _hour_of(first)
        of_hour = left.filter(start__lt=hour + HOUR).order_by().values_list("symbol", "provider").distinct()
        _store_longer([(symbol, provider, hour) for symbol, provider in of_hour], now=now)
        progress.hours_until = hour + HOUR


def _store_longer(moments: Sequence[tuple[str, str, datetime]], *, now: datetime) -> None:
    """Make the hours and the days that these moments of series are in."""
    hours = {(symbol, provider, _hour_of(moment)) for symbol, provider, moment in moments}
    for some in _batches(hours):
        _write(BarInterval.HOUR, statements.HOURS.format(minutes="price_bars"), _hours(some), now=now)
    days = {day for symbol, provider, hour in hours for day in days_of(symbol, provider, hour, hour + HOUR)}
    for some_days in _batches(days):
        _write(BarInterval.DAY, statements.DAYS.format(minutes="price_bars"), day_values(some_days), now=now)


def _batches(series: Collection[_Series]) -> Iterator[Sequence[_Series]]:
    # In order, so that two that write the same bars would wait for each other and not lock each other out.
    in_order = sorted(series)
    for begin in range(0, len(in_order), BARS_AT_ONCE):
        yield in_order[begin : begin + BARS_AT_ONCE]


def _hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


# When a bar of each interval is over. A day's is so in every time zone.
_ENDS = {BarInterval.MINUTE: "1 minute", BarInterval.HOUR: "1 hour", BarInterval.DAY: "2 days"}


def _write(interval: BarInterval, bars: str, values: dict[str, Any], *, now: datetime) -> None:
    end = f"stored.start + interval '{_ENDS[interval]}'"
    with connection.cursor() as cursor:
        cursor.execute(
            statements.STORE.format(bars=bars, end=end),
            values | {"interval": interval, "settled": now - SETTLES_AFTER},
        )


def _minutes(series: Iterable[tuple[str, str, datetime]]) -> dict[str, Any]:
    symbols, providers, starts = map(list, zip(*series, strict=True))
    return minute_values(symbols, providers, starts)


def minute_values(
    symbols: Sequence[str], providers: Sequence[str], starts: Sequence[datetime]
) -> dict[str, Any]:
    """Return the values of MINUTES for minutes of series."""
    return {
        "symbols": symbols,
        "providers": providers,
        "starts": starts,
        "lowest": [lowest_id(start) for start in starts],
        "highest": [first_id_at(start + MINUTE + 2 * CLOCKS_AGREE_WITHIN) for start in starts],
        "open": [_may_trade(*each) for each in zip(symbols, providers, starts, strict=True)],
    }


def lowest_id(observed: datetime) -> UUID:
    """Return the lowest id that a point which was true at this moment can have."""
    return first_id_at(observed - 2 * CLOCKS_AGREE_WITHIN)


def _may_trade(symbol: str, provider: str, moment: datetime) -> bool:
    hours = market_hours(symbol, provider=provider, moment=moment)
    return hours is None or hours.state is not MarketState.CLOSED


def _hours(series: Iterable[tuple[str, str, datetime]]) -> dict[str, Any]:
    symbols, providers, starts = map(list, zip(*series, strict=True))
    return {
        "symbols": symbols,
        "providers": providers,
        "starts": starts,
        "ends": [start + HOUR for start in starts],
    }


def days_of(symbol: str, provider: str, start: datetime, end: datetime) -> Iterator[SeriesDay]:
    """Yield the days of a listing that touch a time."""
    begins = days_between(symbol, provider=provider, start=start, end=end)
    for (begin, day), (finish, _) in pairwise(begins):
        yield symbol, provider, begin, finish, datetime(day.year, day.month, day.day, tzinfo=start.tzinfo)


def day_values(days: Iterable[SeriesDay]) -> dict[str, Any]:
    """Return the values of DAYS."""
    symbols, providers, starts, ends, dates = map(list, zip(*days, strict=True))
    return {
        "symbols": symbols,
        "providers": providers,
        "starts": starts,
        "ends": ends,
        "days": dates,
        "lowest": [lowest_id(start) for start in starts],
    }
