"""Columns hold exactly what events say, and times are read many at once as one by one."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import numpy as np
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
    parse_times,
    unsigned_halves,
)
from prices.publishing.events import EventError, PriceEvent, read_time
from tests.consumers.samples import event

uuids = st.uuids()
prices = st.decimals(
    min_value=Decimal("1e-16"), max_value=Decimal("999999999999.9999999999999999"), places=16
)
zones = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(
    min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29), timezones=st.one_of(st.just(UTC), zones)
)
texts = st.builds(
    lambda moment, decimals: moment.isoformat(timespec=decimals).replace("+00:00", "Z"),
    moments,
    st.sampled_from(["auto", "seconds", "milliseconds", "microseconds"]),
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


def one_by_one(times: list[str]) -> list[int] | None:
    try:
        return [microseconds(read_time(text)) for text in times]
    except EventError:
        return None


def at_once(times: list[str]) -> list[int] | None:
    try:
        return list(map(int, parse_times(times)))
    except ValueError:
        return None


@given(st.lists(texts, max_size=30))
def test_times_are_read_exactly(times: list[str]) -> None:
    assert at_once(times) == one_by_one(times) is not None


@given(st.lists(texts, min_size=1, max_size=3), st.data())
def test_one_changed_letter_is_read_alike(times: list[str], data: st.DataObject) -> None:
    text = times[0]
    place = data.draw(st.integers(0, len(text)))
    new = data.draw(st.sampled_from([*"0123456789-:.TtZz+ ", "", "é", "\0"]))
    times[0] = text[:place] + new + text[place + data.draw(st.integers(0, 1)) :]
    assert at_once(times) == one_by_one(times)


@pytest.mark.parametrize(
    "text",
    [
        *("2028-02-29T23:59:59Z", "2027-02-29T00:00:00Z", "2100-02-29T00:00:00Z", "2000-02-29T00:00:00.1Z"),
        *("2026-04-31T00:00:00Z", "2026-00-01T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-00T00:00:00Z"),
        *("2026-06-30T23:59:60Z", "2026-01-05T24:00:00Z", "2026-01-05T12:60:00Z", "0000-01-01T00:00:00Z"),
        *("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2026-01-05T12:00:00.Z", "2026-01-05"),
        *("2026-01-05t12:00:00z", "2026-01-05T12:00:00", "2026-01-05T12:00:00.1234567Z", ""),
        *("9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00", "2026-01-05T12:00:00.123456+01:00"),
    ],
)
def test_edges_are_read_alike(text: str) -> None:
    assert at_once([text]) == one_by_one([text])


def test_no_times_are_none() -> None:
    assert np.array_equal(parse_times([]), [])
