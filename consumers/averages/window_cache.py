"""The consumer's cache: the last points of each series, so that it need not read them again.

Cached points are compared with the table before they are relied on: another writer may have been there.
"""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from psycopg import Cursor

from consumers.averages.columns import HIGH, LOW, NO_POINTS, WHOLE, Integers, Series, id_of
from consumers.averages.statements import read_last_points
from consumers.averages.windows import PREDECESSORS, Averaged, Batch
from prices.models.symbol_average import WINDOW_POINTS

# An event that is late by more points of its series than are cached is averaged in SQL, or read again.
MOST_POINTS = 64
LEAST_POINTS = 8
# 40 MB. The more series there are, the fewer points of each are cached.
MOST_POINTS_IN_ALL = 1_280_000
# 70 MB with what Python needs for each; what is left out is read again.
MOST_SERIES = 100_000

Halves: TypeAlias = tuple[int, int]


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
        for series, lowest in _lowest(batch).items():
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


def read_lookbacks(cursor: Cursor, batch: Batch, *, but: Collection[Series]) -> dict[Series, Lookback]:
    """Read what the batch needs of its series, but of these; they must be locked.

    As far back as events in order need it, and further for those that are not. Series are missing that have
    an event below all that is looked at.
    """
    lookbacks = {}
    left = {series: lowest for series, lowest in _lowest(batch).items() if series not in but}
    for most in (WINDOW_POINTS, MOST_POINTS):
        for series, window in _read_windows(cursor, left, most=most).items():
            start = window.lookback_start(left[series])
            if start is not None:
                lookbacks[series] = Lookback(window, start)
                del left[series]
    return lookbacks


def _has_predecessors(window: CachedWindow, start: int, lowest: Halves) -> bool:
    last = start + PREDECESSORS - 1
    return last < len(window.points) and _halves(window.points[last]) < lowest


def _lowest(batch: Batch) -> dict[Series, Halves]:
    """Return the lowest id of each series of the batch."""
    first = batch.points[batch.bounds[:-1], :WHOLE].tolist()
    return {series: (high, low) for series, (high, low) in zip(batch.series, first, strict=True)}


def _read_windows(
    cursor: Cursor, lowest: Mapping[Series, Halves], *, most: int
) -> dict[Series, CachedWindow]:
    if not lowest:
        return {}
    near = id_of(np.array(min(lowest.values())))
    points = read_last_points(cursor, list(lowest), near=near, most=most)
    return {
        series: CachedWindow(found, is_complete=len(found) < most)
        for series in lowest
        for found in [points.get(series, NO_POINTS)]
    }


def _halves(point: Integers) -> Halves:
    return int(point[HIGH]), int(point[LOW])
