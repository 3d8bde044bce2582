"""What is remembered grows with the series, up to a bound, and more of them cost a share of it, not all."""

import pytest

from consumers.averages import histories
from consumers.averages.columns import NO_POINTS, columns_of
from consumers.averages.histories import Context, Histories, History
from consumers.averages.windows import Batch, average, sort_events
from tests.consumers.samples import event

NOTHING = Context(History(NO_POINTS, is_whole=True), 0)


def batch_of(symbols: range, *, at: int) -> Batch:
    """Return a batch of five points of each symbol."""
    return sort_events(
        columns_of([event(at + number, symbol=f"S{each}") for each in symbols for number in range(5)])
    )


def remember(known: Histories, batch: Batch) -> int:
    """Remember a batch as the store does; return how many of its series were remembered before."""
    held = known.contexts(batch)
    contexts = {series: held.get(series, NOTHING) for series in batch.series}
    known.remember(average(batch, [contexts[series].points for series in batch.series]), contexts)
    return len(held)


def test_series_in_turn_are_remembered_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth more series than there is room for: with the oldest ones left out none would be found."""
    monkeypatch.setattr(histories, "MOST_SERIES", 100)
    known, found = Histories(), 0
    for turn in range(5):
        for first in range(0, 120, 20):
            hits = remember(known, batch_of(range(first, first + 20), at=turn * 1_000 + first))
            found += hits if turn else 0
    assert found > 4 * 120 / 4


def test_more_series_have_fewer_points_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "MOST_POINTS_IN_ALL", 1_000)
    known = Histories()
    for turn in range(20):
        for first in range(0, 50, 10):
            hits = remember(known, batch_of(range(first, first + 10), at=turn * 1_000 + first))
            assert hits == (10 if turn else 0)
    lengths = [
        len(context.history.points) for context in known.contexts(batch_of(range(50), at=90_000)).values()
    ]
    assert len(lengths) == 50
    assert sum(lengths) <= 1_000


def test_few_series_have_many_points() -> None:
    known = Histories()
    for turn in range(20):
        remember(known, batch_of(range(3), at=turn * 1_000))
    contexts = known.contexts(batch_of(range(3), at=90_000))
    assert [len(context.history.points) for context in contexts.values()] == [histories.MOST_POINTS] * 3
