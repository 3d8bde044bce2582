"""A bar, and how several become a longer one."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from prices.bars.making import MINUTE
from prices.database.uuid7 import EPOCH


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


def key_of(bar: Bar) -> tuple[datetime, str, str]:
    """Return what tells a bar from others of its symbol and length."""
    return bar.start, bar.provider, bar.currency


def as_of(bar: Bar, start: datetime, length: timedelta) -> Bar:
    """Return a bar as a part of a longer one, which is not stored."""
    return replace(bar, start=start, end=start + length, revision=0)


def part_of(minute: Bar, length: timedelta) -> Bar:
    """Return a stored minute as a part of a longer bar, with its revision."""
    start = floor(minute.start, length)
    return replace(minute, start=start, end=start + length)


def made_of(row: tuple[Any, ...]) -> Bar:
    """Return a bar of a row of MINUTES."""
    _symbol, _interval, start, provider, currency, *values = row
    names = ("open", "high", "low", "close", "samples", "first_observed_at", "last_observed_at")
    told = dict(zip(names, values, strict=True))
    return Bar(start=start, end=start + MINUTE, provider=provider, currency=currency, revision=0, **told)


def joined(bars: Iterable[Bar]) -> list[Bar]:
    """Return one bar of those with the same start, provider and currency."""
    found: dict[tuple[datetime, str, str], Bar] = {}
    for bar in bars:
        other = found.get(key_of(bar))
        found[key_of(bar)] = bar if other is None else _join(other, bar)
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


def floor(moment: datetime, length: timedelta) -> datetime:
    """Return when the interval begins that the moment is in."""
    return moment - (moment - EPOCH) % length


def ceiling(moment: datetime, length: timedelta) -> datetime:
    """Return when the first interval begins that begins then or later."""
    return moment + (EPOCH - moment) % length
