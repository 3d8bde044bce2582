"""What a consumer remembers of its symbols: the last points of each, so that it need not read them again.

Remembered points are looked at in the table before they are used: another writer may have been there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from psycopg import Cursor

from consumers.averages import PREDECESSORS, Averaged, Batch
from consumers.columns import HIGH, LOW, NO_POINTS, WHOLE, Integers, id_of
from consumers.statements import read_epoch, read_last_points, stale_symbols
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
        self._epoch = 0

    def forget(self, symbols: Sequence[str] | None = None) -> None:
        """Drop what is known of these symbols, or of all."""
        if symbols is None:
            self._known = {}
        else:
            for symbol in symbols:
                self._known.pop(symbol, None)

    def contexts(self, cursor: Cursor, batch: Batch) -> dict[str, Context]:
        """Give what the batch needs of each symbol, as the table holds it now.

        The symbols must be locked. Those that are missing have an event below all that is looked at.
        """
        self._look_at_epoch(cursor)
        lowest = _lowest(batch)
        contexts = self._remembered(cursor, lowest)
        return contexts | _read(
            cursor, {symbol: lowest[symbol] for symbol in lowest if symbol not in contexts}
        )

    def remember(self, averaged: Averaged, contexts: Mapping[str, Context]) -> None:
        """Take note of what was committed."""
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

    def _look_at_epoch(self, cursor: Cursor) -> None:
        # A rebuild may have changed prices that are remembered here.
        epoch = read_epoch(cursor)
        if epoch != self._epoch:
            self.forget()
            self._epoch = epoch

    def _remembered(self, cursor: Cursor, lowest: Mapping[str, Halves]) -> dict[str, Context]:
        contexts = {}
        for symbol, halves in lowest.items():
            history = self._known.get(symbol)
            start = history.start_below(halves) if history is not None else None
            # With fewer than four points below, one that came before all of them would not be seen.
            if history is not None and start is not None and _has_predecessors(history, start, halves):
                contexts[symbol] = Context(history, start)
        stale = stale_symbols(
            cursor,
            list(contexts),
            oldest=[id_of(context.points[0]) for context in contexts.values()],
            counts=[len(context.points) for context in contexts.values()],
        )
        return {symbol: context for symbol, context in contexts.items() if symbol not in stale}


def _has_predecessors(history: History, start: int, lowest: Halves) -> bool:
    last = start + PREDECESSORS - 1
    return last < len(history.points) and _halves(history.points[last]) < lowest


def _lowest(batch: Batch) -> dict[str, Halves]:
    """Give the lowest id of each symbol of the batch."""
    first = batch.points[batch.bounds[:-1], :WHOLE].tolist()
    return {symbol: (high, low) for symbol, (high, low) in zip(batch.symbols, first, strict=True)}


def _read(cursor: Cursor, lowest: Mapping[str, Halves]) -> dict[str, Context]:
    """Read histories: as far back as events in order need it, and further for those that are not."""
    contexts = {}
    left = dict(lowest)
    for most in (WINDOW_POINTS, MOST_POINTS):
        for symbol, history in _read_histories(cursor, left, most=most).items():
            start = history.start_below(lowest[symbol])
            if start is not None:
                contexts[symbol] = Context(history, start)
                del left[symbol]
    return contexts


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
