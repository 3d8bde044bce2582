"""What a consumer remembers of its symbols: the last points of each, so that it need not read them again.

Remembered points are compared with the table before they are relied on: another writer may have been there.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from psycopg import Cursor

from consumers.averages import PREDECESSORS, Averaged, Batch
from consumers.columns import HIGH, LOW, NO_POINTS, WHOLE, Integers, id_of
from consumers.statements import read_last_points
from prices.models.symbol_average import WINDOW_POINTS

# An event that is late by more points of its symbol than this is averaged in SQL.
MOST_POINTS = 64
# 40 MB of points at most; what is left out is read again.
MOST_SYMBOLS = 20_000

Halves: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class History:
    """The last points of a symbol, by id; `is_whole` where it has no others."""

    points: Integers
    is_whole: bool

    def start_below(self, lowest: Halves) -> int | None:
        """Give the place of the fourth point below an id, or of the first; None where it is deeper."""
        points = self.points
        below = len(points)
        if below and _halves(points[-1]) >= lowest:
            high, low = lowest
            is_below = (points[:, HIGH] < high) | ((points[:, HIGH] == high) & (points[:, LOW] < low))
            below = int(np.count_nonzero(is_below))
        if below >= PREDECESSORS:
            return below - PREDECESSORS
        return 0 if self.is_whole else None


@dataclass(frozen=True, slots=True)
class Context:
    """A symbol's history, and the place in it from which a batch needs it."""

    history: History
    start: int

    @property
    def points(self) -> Integers:
        """The points that the batch needs."""
        return self.history.points[self.start :]


class Histories:
    """The histories of the symbols that came last."""

    def __init__(self) -> None:
        self._known: dict[str, History] = {}

    def forget(self, symbols: Sequence[str] | None = None) -> None:
        """Drop what is known of these symbols, or of all."""
        if symbols is None:
            self._known = {}
        else:
            for symbol in symbols:
                self._known.pop(symbol, None)

    def contexts(self, batch: Batch) -> dict[str, Context]:
        """Give what the batch needs of each symbol; those are missing of which too little is remembered."""
        contexts = {}
        for symbol, lowest in _lowest(batch).items():
            history = self._known.get(symbol)
            start = history.start_below(lowest) if history is not None else None
            # With fewer than four points below, one that came before all of them would not be seen.
            if history is not None and start is not None and _has_predecessors(history, start, lowest):
                contexts[symbol] = Context(history, start)
        return contexts

    def remember(self, averaged: Averaged, contexts: Mapping[str, Context]) -> None:
        """Take note of points that are stored, or are about to be."""
        bounds = averaged.bounds.tolist()
        for number, symbol in enumerate(averaged.symbols):
            context = contexts[symbol]
            older = context.history.points[: context.start]
            newer = averaged.points[bounds[number] : bounds[number + 1]]
            # Copied, also where nothing is older: a view would keep the points of the whole batch.
            points = np.concatenate([older, newer])
            self._known.pop(symbol, None)
            if len(points) >= WINDOW_POINTS:
                is_whole = context.history.is_whole and len(points) <= MOST_POINTS
                self._known[symbol] = History(points[-MOST_POINTS:], is_whole)
        for symbol in list(self._known)[: max(len(self._known) - MOST_SYMBOLS, 0)]:
            del self._known[symbol]


def read_contexts(cursor: Cursor, batch: Batch, *, but: Collection[str]) -> dict[str, Context]:
    """Read what the batch needs of its symbols, but of these; they must be locked.

    As far back as events in order need it, and further for those that are not. Symbols are missing that have
    an event below all that is looked at.
    """
    contexts = {}
    left = {symbol: lowest for symbol, lowest in _lowest(batch).items() if symbol not in but}
    for most in (WINDOW_POINTS, MOST_POINTS):
        for symbol, history in _read_histories(cursor, left, most=most).items():
            start = history.start_below(left[symbol])
            if start is not None:
                contexts[symbol] = Context(history, start)
                del left[symbol]
    return contexts


def _has_predecessors(history: History, start: int, lowest: Halves) -> bool:
    last = start + PREDECESSORS - 1
    return last < len(history.points) and _halves(history.points[last]) < lowest


def _lowest(batch: Batch) -> dict[str, Halves]:
    """Give the lowest id of each symbol of the batch."""
    first = batch.points[batch.bounds[:-1], :WHOLE].tolist()
    return {symbol: (high, low) for symbol, (high, low) in zip(batch.symbols, first, strict=True)}


def _read_histories(cursor: Cursor, lowest: Mapping[str, Halves], *, most: int) -> dict[str, History]:
    if not lowest:
        return {}
    near = id_of(np.array(min(lowest.values())))
    points = read_last_points(cursor, list(lowest), near=near, most=most)
    return {
        symbol: History(found, is_whole=len(found) < most)
        for symbol in lowest
        for found in [points.get(symbol, NO_POINTS)]
    }


def _halves(point: Integers) -> Halves:
    return int(point[HIGH]), int(point[LOW])
