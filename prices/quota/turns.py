"""Whose turn it is: which of a class's requests are granted at a slot, where a budget is too small for all.

Requests are numbered by a clock that the classes with the same market hours share: at reading c the last one
has the number floor(rate x c + offset). Each number belongs to one class, in turn; and within a class each
goes to the next of its requests. So nothing is remembered, everyone counts alike, all symbols are asked
equally often, and the requests of all classes together are as even as those of one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from math import floor

from django.conf import settings

from prices.ledger.market_hours import calendars_of
from prices.quota.clock import DAY_US, Clock, PlainClock, market_clock
from prices.quota.demand import ClassKey, Demand
from prices.quota.fair_shares import UNITS, FairShares
from providers.rate_limits.limits import Limit

# Of a window, that is left unused at most so that slots which come late do not crowd it.
_MOST_SLACK = Fraction(1, 100)


@dataclass(frozen=True, slots=True)
class Row:
    """Classes that share a clock, and how many requests they take together for each unit of it.

    `rate` None: the clock's hours are the only limit.
    """

    clock: Clock
    rate: Fraction | None
    offset: Fraction
    classes: int

    def number_at(self, reading: Fraction) -> int:
        """Return the number of the last request at this reading of the clock."""
        return floor((self.rate or 0) * reading + self.offset)


@dataclass(frozen=True, slots=True)
class Turn:
    """A class's rank in its row, and what it is granted in a window, in units."""

    row: Row
    rank: int
    grant: Fraction

    def granted(self, requests: int, *, after: datetime, due_at: datetime) -> set[int]:
        """Return which of a slot's requests are granted, by their indices; `after` is the slot before."""
        passages = list(self.row.clock.passages(after, due_at))
        if self.row.rate is None:
            return set(range(requests)) if passages else set()
        indices: set[int] = set()
        for start, end in passages:
            first, last = (self._count(self.row.number_at(reading)) for reading in (start, end))
            indices.update(number % requests for number in range(first, min(last, first + requests)))
        return indices

    def _count(self, number: int) -> int:
        # How many of the row's requests up to this number were this class's, give or take a constant.
        return (number - self.rank) // self.row.classes


def take_turns(
    demands: Sequence[Demand], *, provider: str, limit: Limit, capacity: int, now: datetime
) -> dict[ClassKey, Turn]:
    """Share `capacity` (in units a window) among classes that want more than that together.

    Those whose markets have hours want no more than those; who gets that all the same has no turn to wait
    for, but the hours. One that gets all and trades always, or is polled in those hours anyway, is not in the
    answer.
    """
    window_us = limit.window_ms * 1000
    clocks = {demand.key: _clock_for(demand, provider, window_us, now) for demand in demands}
    wants = {
        demand.key: demand.while_running(clocks[demand.key].running_us).units_in(window_us)
        for demand in demands
    }
    level = FairShares(wants.values(), capacity).level()
    top = None if level is None else floor(level)
    rows: dict[Clock, list[Demand]] = {}
    turns: dict[ClassKey, Turn] = {}
    for demand in sorted(demands, key=lambda each: each.key):
        clock = clocks[demand.key]
        if top is None or wants[demand.key] <= top:
            if clock.follows_markets and not demand.key.market_hours:
                turns[demand.key] = Turn(Row(clock, None, Fraction(0), 1), 0, Fraction(wants[demand.key]))
        else:
            rows.setdefault(clock, []).append(demand)
    if level is not None:
        turns |= _turns_in_rows(rows, level)
    return turns


def _turns_in_rows(rows: Mapping[Clock, list[Demand]], level: Fraction) -> dict[ClassKey, Turn]:
    turns: dict[ClassKey, Turn] = {}
    for number, (clock, members) in enumerate(rows.items()):
        rate = len(members) * level / UNITS * _slowness(clock, members)
        # Rows of few requests each do not all ask on the same day.
        offset = Fraction(2 * number + 1, 2 * len(rows))
        row = Row(clock, rate, offset, len(members))
        turns |= {demand.key: Turn(row, rank, level) for rank, demand in enumerate(members)}
    return turns


def _slowness(clock: Clock, members: Iterable[Demand]) -> Fraction:
    """Return by how much slower requests are numbered, so that no window holds one too many.

    A request waits for its class's next slot, and counts until a window after its answer came.
    """
    late_s = max(demand.key.interval for demand in members) + settings.PROVIDER_TIMEOUT_S
    late = min(Fraction(late_s * 1_000_000, clock.running_us), _MOST_SLACK)
    return 1 / (1 + late)


def in_its_hours(demand: Demand, *, provider: str, window_us: int, now: datetime) -> Demand:
    """Return the demand with what its market hours leave of it, if it has any."""
    if not demand.key.market_hours:
        return demand
    return demand.while_running(_clock_for(demand, provider, window_us, now).running_us)


def _clock_for(demand: Demand, provider: str, window_us: int, now: datetime) -> Clock:
    key = demand.key
    # With market hours a job follows those that it has, whoever is asked.
    named = key.named or None if key.market_hours else provider
    calendars = calendars_of(key.symbols, provider=named) if window_us >= DAY_US else None
    found = market_clock(calendars, window_us=window_us, now=now) if calendars else None
    return found or PlainClock(window_us)
