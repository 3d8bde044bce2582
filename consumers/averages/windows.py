"""Windows of five points: their means, exact, for many series at once, and the cache of stored points.

A new point that is not its series' newest changes the means of up to four points after it, so what is
merged here are the batch's points with those stored points that they touch.

The last points of each series are cached, so that the consumer need not read them again. They are compared
with the table before they are relied on: another writer may have been there. The table itself is read in
statements.py.
"""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from consumers.averages.columns import FRACTION, HIGH, LOW, NO_POINTS, ONE, WHOLE, Events, Integers, Series
from prices.models.symbol_average import WINDOW_POINTS

PREDECESSORS = WINDOW_POINTS - 1
# A fifth of a sum has one digit more than the prices have.
MEAN_ONE = ONE * 10

# An event that is late by more points of its series than are cached is averaged in SQL, or read again.
MOST_POINTS = 64
LEAST_POINTS = 8
# 40 MB. The more series there are, the fewer points of each are cached.
MOST_POINTS_IN_ALL = 1_280_000
# 70 MB with what Python needs for each; what is left out is read again.
MOST_SERIES = 100_000

Halves: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Batch:
    """Events by series, each one's in the order of their ids, no id of a series twice.

    bounds     (series + 1) where each one's points begin, and where the last one's end
    arrival    (n) of each point, its index in the events
    """

    series: list[Series]
    bounds: NDArray[np.intp]
    points: Integers
    arrival: NDArray[np.intp]

    def symbols(self) -> list[str]:
        """Return each symbol once."""
        return list(dict.fromkeys(symbol for symbol, _currency in self.series))

    def lowest(self) -> dict[Series, Halves]:
        """Return the lowest id of each series."""
        first = self.points[self.bounds[:-1], :WHOLE].tolist()
        return {series: (high, low) for series, (high, low) in zip(self.series, first, strict=True)}


@dataclass(frozen=True, slots=True)
class Averaged:
    """Points with the mean of their window, sorted as a batch is.

    arrival    (n) as a batch has it; -1 for a point that is stored already
    sizes      (n) points in the window, 1 to 5
    wholes     (n) the mean, where the size is 5: its whole part
    fractions  (n) and its 10^-17 parts
    changed    (n) whether a stored point's mean is another one now
    """

    series: list[Series]
    bounds: NDArray[np.intp]
    points: Integers
    arrival: NDArray[np.intp]
    sizes: Integers
    wholes: Integers
    fractions: Integers
    changed: NDArray[np.bool_]


def sort_events(events: Events) -> Batch:
    """Sort events by series and id. Of several with one id and series the first counts."""
    points, codes = events.points, events.codes
    order = np.lexsort((points[:, LOW], points[:, HIGH], codes))
    points, codes = points[order], codes[order]
    first = ~_repeats(points, codes)
    codes = codes[first]
    return Batch(
        series=events.series,
        bounds=np.searchsorted(codes, np.arange(len(events.series) + 1)),
        points=points[first],
        arrival=order[first],
    )


def leave_out(batch: Batch, series: Collection[Series]) -> Batch:
    """Return the batch without these series."""
    if not series:
        return batch
    counts = np.diff(batch.bounds)
    stays = np.array([each not in series for each in batch.series], dtype=np.bool_)
    rows = np.repeat(stays, counts)
    return Batch(
        series=[each for each in batch.series if each not in series],
        bounds=_bounds(counts[stays]),
        points=batch.points[rows],
        arrival=batch.arrival[rows],
    )


def average(batch: Batch, contexts: Sequence[Integers]) -> Averaged:
    """Merge the batch with stored points, and give each point its mean.

    `contexts` has for each series of the batch its stored points from the fourth one below the batch's
    lowest on, or from its first where there are fewer; sorted by id.
    """
    points, arrival, groups = _merge(batch, contexts)
    bounds = np.searchsorted(groups, np.arange(len(batch.series) + 1))
    positions = np.arange(len(points)) - bounds[groups]
    wholes, fractions = _means(points)
    return Averaged(
        series=batch.series,
        bounds=bounds,
        points=points,
        arrival=arrival,
        sizes=np.minimum(positions + 1, WINDOW_POINTS),
        wholes=wholes,
        fractions=fractions,
        changed=_follows_new(arrival, positions),
    )


def _merge(batch: Batch, contexts: Sequence[Integers]) -> tuple[Integers, NDArray[np.intp], NDArray[np.intp]]:
    """Return all points by series and id, their arrivals, and the index of each one's series."""
    stored = np.array([len(context) for context in contexts], dtype=np.intp)
    added = np.diff(batch.bounds)
    groups = np.repeat(np.arange(len(batch.series)), stored + added)
    points = np.concatenate([NO_POINTS, *_alternating(batch, contexts)])
    arrival = np.full(len(points), -1, dtype=np.intp)
    shift = np.repeat(np.cumsum(stored), added)
    arrival[np.arange(len(batch.points)) + shift] = batch.arrival
    if _is_sorted(points, groups):
        return points, arrival, groups
    # Stable, and stored points come first: of a point that is there already the stored one counts.
    order = np.lexsort((points[:, LOW], points[:, HIGH], groups))
    points, arrival = points[order], arrival[order]
    first = ~_repeats(points, groups)
    return points[first], arrival[first], groups[first]


def _alternating(batch: Batch, contexts: Sequence[Integers]) -> list[Integers]:
    bounds = batch.bounds.tolist()
    pieces = []
    for number, context in enumerate(contexts):
        pieces += [context, batch.points[bounds[number] : bounds[number + 1]]]
    return pieces


def _means(points: Integers) -> tuple[Integers, Integers]:
    """Return a fifth of the sum of each point and the four before it; in 64 bits nothing is lost.

    Five sound prices have a sum below 5 x 10^12 wholes and 5 x 10^16 fractions, and what is added below stays
    under 2 x 10^17. Where there are fewer than five points of the series it is the mean of nothing.
    """
    wholes, fractions = points[:, WHOLE].copy(), points[:, FRACTION].copy()
    for back in range(1, WINDOW_POINTS):
        wholes[back:] += points[:-back, WHOLE]
        fractions[back:] += points[:-back, FRACTION]
    # A fifth is two tenths: the tenths of the wholes go over to the fractions.
    mean, tenths = np.divmod(wholes * 2, 10)
    over, parts = np.divmod(tenths * ONE + fractions * 2, MEAN_ONE)
    return mean + over, parts


def _follows_new(arrival: NDArray[np.intp], positions: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return, for each point, whether it is stored, and a new one is among its four predecessors."""
    is_new = arrival >= 0
    follows = np.zeros(len(arrival), dtype=np.bool_)
    for back in range(1, WINDOW_POINTS):
        follows[back:] |= is_new[:-back] & (positions[back:] >= back)
    return follows & ~is_new


def _repeats(points: Integers, groups: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return, for each sorted point, whether the one before it has the same series and id."""
    repeats = np.zeros(len(points), dtype=np.bool_)
    same_id = (points[1:, HIGH] == points[:-1, HIGH]) & (points[1:, LOW] == points[:-1, LOW])
    repeats[1:] = same_id & (groups[1:] == groups[:-1])
    return repeats


def _is_sorted(points: Integers, groups: NDArray[np.intp]) -> bool:
    """Return whether each series' ids rise."""
    high, low = points[:, HIGH], points[:, LOW]
    rises = (high[1:] > high[:-1]) | ((high[1:] == high[:-1]) & (low[1:] > low[:-1]))
    return bool(np.all(rises | (groups[1:] != groups[:-1])))


def _bounds(counts: NDArray[np.intp]) -> NDArray[np.intp]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.intp)


@dataclass(frozen=True, slots=True)
class CachedWindow:
    """The last points of a series, by id; `is_complete` where it has no others."""

    points: Integers
    is_complete: bool

    def lookback_start(self, lowest: Halves) -> int | None:
        """Return the index of the fourth point below an id, or of the first; None where it is deeper."""
        points = self.points
        below = len(points)
        if below and _halves(points[-1]) >= lowest:
            high, low = lowest
            is_below = (points[:, HIGH] < high) | ((points[:, HIGH] == high) & (points[:, LOW] < low))
            below = int(np.count_nonzero(is_below))
        if below >= PREDECESSORS:
            return below - PREDECESSORS
        return 0 if self.is_complete else None


@dataclass(frozen=True, slots=True)
class Lookback:
    """A series' cached points, and the index of the first that a batch needs."""

    window: CachedWindow
    start: int

    @property
    def points(self) -> Integers:
        """The points that the batch needs."""
        return self.window.points[self.start :]


class WindowCache:
    """The last points of all series or, where there are very many, of as many as there is room for."""

    def __init__(self) -> None:
        self._windows: dict[Series, CachedWindow] = {}

    def invalidate(self, series: Sequence[Series] | None = None) -> None:
        """Drop what is cached of these series, or of all."""
        if series is None:
            self._windows = {}
        else:
            for each in series:
                self._windows.pop(each, None)

    def lookbacks(self, batch: Batch) -> dict[Series, Lookback]:
        """Return what the batch needs of each series; those are missing of which too little is cached."""
        lookbacks = {}
        for series, lowest in batch.lowest().items():
            window = self._windows.get(series)
            start = window.lookback_start(lowest) if window is not None else None
            # With fewer than four points below, one that came before all of them would not be seen.
            if window is not None and start is not None and _has_predecessors(window, start, lowest):
                lookbacks[series] = Lookback(window, start)
        return lookbacks

    def update(self, averaged: Averaged, lookbacks: Mapping[Series, Lookback]) -> None:
        """Take note of points that are stored, or are about to be."""
        most = MOST_POINTS_IN_ALL // max(len(self._windows), 1)
        most = min(max(most, LEAST_POINTS), MOST_POINTS)
        bounds = averaged.bounds.tolist()
        for number, series in enumerate(averaged.series):
            lookback = lookbacks[series]
            older = lookback.window.points[: lookback.start]
            newer = averaged.points[bounds[number] : bounds[number + 1]]
            # Copied, also where nothing is older: a view would keep the points of the whole batch.
            points = np.concatenate([older, newer])
            self._windows.pop(series, None)
            if len(points) >= WINDOW_POINTS:
                is_complete = lookback.window.is_complete and len(points) <= most
                self._windows[series] = CachedWindow(points[-most:].copy(), is_complete)
        excess = len(self._windows) - MOST_SERIES
        if excess > 0:
            # By chance: of series that come in turn, those that came first are the next to come.
            for series in random.sample(list(self._windows), excess):
                del self._windows[series]


def _has_predecessors(window: CachedWindow, start: int, lowest: Halves) -> bool:
    last = start + PREDECESSORS - 1
    return last < len(window.points) and _halves(window.points[last]) < lowest


def _halves(point: Integers) -> Halves:
    return int(point[HIGH]), int(point[LOW])
