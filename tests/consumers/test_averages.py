"""The window is pure: exact means of five decimals."""

from decimal import Decimal, Inexact
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.averages import Window, average_of
from tests.consumers.samples import event_id

prices = st.decimals(
    min_value=Decimal("0.000000000001"), max_value=Decimal("99999999999.999999999999"), places=12
)


def window_of(values: list[str]) -> Window:
    window = Window()
    for number, value in enumerate(values):
        window = window.add(event_id(number), Decimal(value))
    return window


def test_average_of_five_prices_is_exact() -> None:
    assert str(average_of([Decimal(price) for price in (100, 101, 99, 102, 98)])) == "100"


def test_average_has_no_trailing_zeros_and_no_exponent() -> None:
    assert str(average_of([Decimal("1.50")] * 5)) == "1.5"
    assert str(average_of([Decimal(1000)] * 5)) == "1000"


@pytest.mark.parametrize("count", range(5))
def test_average_before_fifth_point_is_none(count: int) -> None:
    window = window_of(["100"] * count)
    assert window.average is None
    assert window.size == count
    assert not window.is_full


def test_average_of_longest_prices_keeps_every_digit() -> None:
    values = [Decimal("99999999999.999999999999")] * 4 + [Decimal("99999999999.999999999998")]
    assert str(average_of(values)) == "99999999999.9999999999988"


def test_average_that_would_be_rounded_raises() -> None:
    with pytest.raises(Inexact):
        average_of([Decimal("1e40"), *[Decimal("1e-10")] * 4])


@given(st.lists(prices, min_size=5, max_size=5))
def test_average_of_any_sound_prices_equals_the_fraction(values: list[Decimal]) -> None:
    average = average_of(values)
    assert average is not None
    assert Fraction(average) == sum(map(Fraction, values), Fraction()) / 5


def test_window_holds_the_last_five_points() -> None:
    window = window_of(["1", "2", "3", "4", "5", "6", "7"])
    assert window.prices == tuple(map(Decimal, ("3", "4", "5", "6", "7")))
    assert window.event_ids == tuple(event_id(number) for number in range(2, 7))
    assert window.watermark == event_id(6)
    assert window.average == 5


def test_window_without_points_has_no_watermark() -> None:
    assert Window().watermark is None


@pytest.mark.parametrize("number", [2, 4])
def test_window_refuses_a_point_that_is_not_the_newest(number: int) -> None:
    with pytest.raises(ValueError, match="does not lie above"):
        window_of(["1"] * 5).add(event_id(number), Decimal(1))
