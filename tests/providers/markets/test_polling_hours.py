"""When markets are worth asking: while they trade, and for an hour after."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from providers.markets.calendars import CURRENCY_WEEK
from providers.markets.polling_hours import polling_hours

NEW_YORK, TOKYO = ZoneInfo("America/New_York"), ZoneInfo("Asia/Tokyo")
MONDAY = datetime(2026, 11, 23, tzinfo=UTC)
DAY = timedelta(days=1)


def in_new_york(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 11, day, hour, minute, tzinfo=NEW_YORK)


def test_hours_go_from_the_open_to_an_hour_after_the_close() -> None:
    # A holiday on Thursday; on Friday trading ends at 13:00.
    assert polling_hours({"XNYS"}, start=MONDAY, end=MONDAY + 7 * DAY) == [
        (in_new_york(day, 9, 30), in_new_york(day, 14 if day == 27 else 17)) for day in (23, 24, 25, 27)
    ]


def test_lunch_break_ends_nothing() -> None:
    opens = datetime(2026, 11, 24, 9, tzinfo=TOKYO)
    found = polling_hours({"XTKS"}, start=opens, end=opens + timedelta(hours=1))
    assert found == [(opens, datetime(2026, 11, 24, 16, 30, tzinfo=TOKYO))]


def test_hours_of_several_markets_are_one_stretch_where_they_meet() -> None:
    found = polling_hours({"XLON", "XNYS"}, start=MONDAY, end=MONDAY + DAY)
    assert found == [(datetime(2026, 11, 23, 8, tzinfo=UTC), in_new_york(23, 17))]
    apart = polling_hours({"XTKS", "XNYS"}, start=MONDAY + DAY, end=MONDAY + 2 * DAY)
    assert apart is not None
    assert [opens.hour for opens, _ in apart] == [0, 14]


def test_hour_after_a_close_before_the_start_counts() -> None:
    half_past = in_new_york(23, 16, 30)
    assert polling_hours({"XNYS"}, start=half_past, end=half_past + timedelta(minutes=1)) == [
        (in_new_york(23, 9, 30), in_new_york(23, 17))
    ]


@pytest.mark.parametrize("start", [datetime(2026, 3, 6, tzinfo=UTC), datetime(2026, 10, 30, tzinfo=UTC)])
def test_hours_follow_a_change_of_the_clock(start: datetime) -> None:
    found = polling_hours({"XNYS"}, start=start, end=start + 5 * DAY) or []
    assert {
        (opens.astimezone(NEW_YORK).hour, closes.astimezone(NEW_YORK).hour) for opens, closes in found
    } == {(9, 17)}
    assert len({opens.hour for opens, _ in found}) == 2


def test_currencies_rest_from_an_hour_after_their_week() -> None:
    found = polling_hours({CURRENCY_WEEK}, start=MONDAY, end=MONDAY + DAY)
    assert found == [(in_new_york(22, 17), in_new_york(27, 18))]


def test_hours_of_an_exchange_that_nobody_knows_are_none() -> None:
    long_ago = datetime(1980, 6, 2, tzinfo=UTC)
    assert polling_hours({CURRENCY_WEEK, "XTKS"}, start=long_ago, end=long_ago + DAY) is None
