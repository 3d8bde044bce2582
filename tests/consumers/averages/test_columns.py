"""Columns hold exactly what events say."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.averages.columns import (
    FRACTION,
    NO_TIME,
    WHOLE,
    columns_of,
    decimal_of,
    halves_of_id,
    id_of,
    microseconds,
    moment_of,
    unsigned_halves,
)
from prices.publishing.events import PriceEvent
from tests.consumers.samples import event

uuids = st.uuids()
prices = st.decimals(
    min_value=Decimal("1e-16"), max_value=Decimal("999999999999.9999999999999999"), places=16
)


@given(uuids, prices, st.one_of(st.none(), st.datetimes(timezones=st.just(UTC))))
def test_event_comes_back_as_it_was(event_id: UUID, price: Decimal, observed_at: datetime | None) -> None:
    columns = columns_of([PriceEvent(event_id, "SIM-A", price, "simulated", observed_at, "GBp")])
    (point,) = columns.points
    assert id_of(point) == event_id
    assert decimal_of(point[WHOLE], point[FRACTION]) == price
    assert moment_of(columns.observed[0]) == observed_at
    assert (columns.series, columns.sources, len(columns)) == ([("SIM-A", "GBp")], ["simulated"], 1)
    assert (columns.codes.tolist(), columns.source_codes.tolist()) == ([0], [0])
    assert (
        b"".join(half.tobytes() for half in unsigned_halves(columns.points).astype(">u8")) == event_id.bytes
    )


@given(uuids, uuids)
def test_halves_have_the_order_of_ids(one: UUID, other: UUID) -> None:
    assert (halves_of_id(one) < halves_of_id(other)) == (one.int < other.int)


def test_series_are_numbered_as_they_come() -> None:
    columns = columns_of([event(number, symbol=symbol) for number, symbol in enumerate("BAB")])
    assert columns.series == [("B", None), ("A", None)]
    assert columns.codes.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("value", "text"), [("100", "100"), ("0.0000000000000001", "0.0000000000000001"), ("1.50", "1.5")]
)
def test_decimal_has_no_trailing_zeros(value: str, text: str) -> None:
    (point,) = columns_of([event(0, price=value)]).points
    assert f"{decimal_of(point[WHOLE], point[FRACTION]):f}" == text


def test_no_time_is_no_time() -> None:
    assert microseconds(None) == NO_TIME
    assert moment_of(NO_TIME) is None
    assert microseconds(datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=1)) == 1
