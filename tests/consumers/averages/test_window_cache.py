"""The cache grows with the series, up to a bound, and more of them cost a share of it, not all."""

import pytest

from consumers.averages import window_cache
from consumers.averages.columns import NO_POINTS, columns_of
from consumers.averages.window_cache import CachedWindow, Lookback, WindowCache
from consumers.averages.windows import Batch, average, sort_events
from tests.consumers.samples import event

NOTHING = Lookback(CachedWindow(NO_POINTS, is_complete=True), 0)


def batch_of(symbols: range, *, at: int) -> Batch:
    """Return a batch of five points of each symbol."""
    return sort_events(
        columns_of([event(at + number, symbol=f"S{each}") for each in symbols for number in range(5)])
    )


def update(known: WindowCache, batch: Batch) -> int:
    """Remember a batch as the store does; return how many of its series were remembered before."""
    held = known.lookbacks(batch)
    lookbacks = {series: held.get(series, NOTHING) for series in batch.series}
    known.update(average(batch, [lookbacks[series].points for series in batch.series]), lookbacks)
    return len(held)


def test_series_in_turn_are_remembered_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth more series than there is room for: with the oldest ones left out none would be found."""
    monkeypatch.setattr(window_cache, "MOST_SERIES", 100)
    known, found = WindowCache(), 0
    for turn in range(5):
        for first in range(0, 120, 20):
            hits = update(known, batch_of(range(first, first + 20), at=turn * 1_000 + first))
            found += hits if turn else 0
    assert found > 4 * 120 / 4


def test_more_series_have_fewer_points_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_cache, "MOST_POINTS_IN_ALL", 1_000)
    known = WindowCache()
    for turn in range(20):
        for first in range(0, 50, 10):
            hits = update(known, batch_of(range(first, first + 10), at=turn * 1_000 + first))
            assert hits == (10 if turn else 0)
    lengths = [
        len(lookback.window.points) for lookback in known.lookbacks(batch_of(range(50), at=90_000)).values()
    ]
    assert len(lengths) == 50
    assert sum(lengths) <= 1_000


def test_few_series_have_many_points() -> None:
    known = WindowCache()
    for turn in range(20):
        update(known, batch_of(range(3), at=turn * 1_000))
    lookbacks = known.lookbacks(batch_of(range(3), at=90_000))
    assert [len(lookback.window.points) for lookback in lookbacks.values()] == [window_cache.MOST_POINTS] * 3
