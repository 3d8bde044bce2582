"""Five-point means, exact, for many series at once. Pure.

A new point that is not its series' newest changes the means of up to four points after it, so what is
merged here are the batch's points with those stored points that they touch.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consumers.averages.columns import FRACTION, HIGH, LOW, NO_POINTS, ONE, WHOLE, Events, Integers, Series
from prices.models.symbol_average import WINDOW_POINTS

PREDECESSORS = WINDOW_POINTS - 1
# A fifth of a sum has one digit more than the prices have.
MEAN_ONE = ONE * 10


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
