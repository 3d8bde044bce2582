"""Means of five are exact, whatever the prices, and however points and batches are mixed.

The cache grows with the series, up to a bound, and more of them cost a share of it, not all.
"""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.averages import windows
from consumers.averages.columns import (
    FRACTION,
    NO_POINTS,
    WHOLE,
    Integers,
    Series,
    columns_of,
    decimal_of,
    id_of,
)
from consumers.averages.windows import (
    Averaged,
    Batch,
    CachedWindow,
    Lookback,
    WindowCache,
    average,
    leave_out,
    sort_events,
)
from prices.publishing.events import PriceEvent
from tests.consumers.samples import event, events

prices = st.decimals(
    min_value=Decimal("1e-16"), max_value=Decimal("999999999999.9999999999999999"), places=16
)
NUMBERS = range(12)
NOTHING = Lookback(CachedWindow(NO_POINTS, is_complete=True), 0)


def averaged(batch: Sequence[PriceEvent], *, stored: Sequence[PriceEvent] = ()) -> Averaged:
    """Average a batch of one symbol beside all of its stored points."""
    context = sort_events(columns_of(stored)).points if stored else NO_POINTS
    return average(sort_events(columns_of(batch)), [context])


def means(found: Averaged) -> list[Decimal | None]:
    return [
        decimal_of(whole, fraction, places=17) if size == 5 else None
        for size, whole, fraction in zip(found.sizes, found.wholes, found.fractions, strict=True)
    ]


def prices_of(points: Integers) -> list[Decimal]:
    return [decimal_of(point[WHOLE], point[FRACTION]) for point in points]


def test_average_of_five_prices_is_exact() -> None:
    found = averaged(events(["100", "101", "99", "102", "98"]))
    assert list(map(str, means(found))) == ["None"] * 4 + ["100"]
    assert found.sizes.tolist() == [1, 2, 3, 4, 5]


def test_average_has_no_trailing_zeros_and_no_exponent() -> None:
    assert str(means(averaged(events(["1.5"] * 5)))[-1]) == "1.5"
    assert str(means(averaged(events(["1000"] * 5)))[-1]) == "1000"


def test_average_of_the_largest_prices_keeps_every_digit() -> None:
    values = ["999999999999.9999999999999999"] * 4 + ["999999999999.9999999999999998"]
    assert str(means(averaged(events(values)))[-1]) == "999999999999.99999999999999988"


@given(st.lists(prices, min_size=5, max_size=5))
def test_average_of_any_sound_prices_equals_the_fraction(values: list[Decimal]) -> None:
    mean = means(averaged(events(map(str, values))))[-1]
    assert mean is not None
    assert Fraction(mean) == sum(map(Fraction, values), Fraction()) / 5


@given(
    stored=st.sets(st.sampled_from(NUMBERS)),
    batch=st.lists(st.sampled_from(NUMBERS), min_size=1),
    values=st.lists(prices, min_size=len(NUMBERS), max_size=len(NUMBERS)),
)
def test_any_batch_beside_any_stored_points_obeys_the_definition(
    stored: set[int], batch: list[int], values: list[Decimal]
) -> None:
    pool = [event(number, price=str(values[number])) for number in NUMBERS]
    found = averaged([pool[number] for number in batch], stored=[pool[number] for number in sorted(stored)])
    there = sorted(stored | set(batch))
    assert [id_of(point) for point in found.points] == [pool[number].event_id for number in there]
    expected = [
        [values[number] for number in there[max(0, place - 4) : place + 1]] for place in range(len(there))
    ]
    assert found.sizes.tolist() == [len(window) for window in expected]
    for mean, window in zip(means(found), expected, strict=True):
        assert mean is None or Fraction(mean) == sum(map(Fraction, window), Fraction()) / 5
    is_new = [number not in stored for number in there]
    assert (found.arrival >= 0).tolist() == is_new
    follows = [not new and any(is_new[max(0, place - 4) : place]) for place, new in enumerate(is_new)]
    assert found.changed.tolist() == follows


def test_symbols_do_not_mix() -> None:
    one, two = events(["1"] * 6, symbol="SIM-A"), events(["2"] * 6, symbol="SIM-B")
    batch = sort_events(columns_of([*two[4:], *reversed(one)]))
    found = average(batch, [sort_events(columns_of(two[:4])).points, NO_POINTS])
    assert found.series == [("SIM-B", None), ("SIM-A", None)]
    assert found.sizes.tolist() == [1, 2, 3, 4, 5, 5, 1, 2, 3, 4, 5, 5]
    assert means(found)[4:6] == [2, 2]
    assert means(found)[-2:] == [1, 1]
    assert not found.changed.any()


def test_of_several_events_with_one_id_the_first_counts() -> None:
    batch = sort_events(columns_of([event(1, price="7"), event(0), event(1, price="8")]))
    assert prices_of(batch.points) == [100, 7]
    assert batch.arrival.tolist() == [1, 0]


def test_of_a_stored_point_and_an_event_with_its_id_the_stored_one_counts() -> None:
    found = averaged([event(1, price="7")], stored=[event(1, price="8")])
    assert prices_of(found.points) == [8]
    assert found.arrival.tolist() == [-1]


def test_leaving_series_out_leaves_the_others() -> None:
    one, two, three = (events(["1", "2"], symbol=symbol) for symbol in ("SIM-A", "SIM-B", "SIM-C"))
    batch = leave_out(sort_events(columns_of([*one, *two, *three])), {("SIM-B", None)})
    assert batch.series == [("SIM-A", None), ("SIM-C", None)]
    assert batch.bounds.tolist() == [0, 2, 4]
    assert [id_of(point) for point in batch.points] == [each.event_id for each in [*one, *three]]
    assert batch.arrival.tolist() == [0, 1, 4, 5]


@pytest.mark.parametrize("series", [set(), {("SIM-A", None)}])
def test_batch_without_events_averages_to_nothing(series: set[Series]) -> None:
    batch = leave_out(sort_events(columns_of([event(0)] if series else [])), series)
    found = average(batch, [])
    assert len(found.points) == 0
    assert found.bounds.tolist() == [0]
    assert found.points.dtype == np.int64


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
    monkeypatch.setattr(windows, "MOST_SERIES", 100)
    known, found = WindowCache(), 0
    for turn in range(5):
        for first in range(0, 120, 20):
            hits = update(known, batch_of(range(first, first + 20), at=turn * 1_000 + first))
            found += hits if turn else 0
    assert found > 4 * 120 / 4


def test_more_series_have_fewer_points_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MOST_POINTS_IN_ALL", 1_000)
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
    assert [len(lookback.window.points) for lookback in lookbacks.values()] == [windows.MOST_POINTS] * 3
