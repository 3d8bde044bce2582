"""Times are read many at once as one by one."""

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.averages.columns import microseconds
from consumers.averages.times import parse_times
from prices.publishing.events import EventError, read_time

zones = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(
    min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29), timezones=st.one_of(st.just(UTC), zones)
)
texts = st.builds(
    lambda moment, decimals: moment.isoformat(timespec=decimals).replace("+00:00", "Z"),
    moments,
    st.sampled_from(["auto", "seconds", "milliseconds", "microseconds"]),
)


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
