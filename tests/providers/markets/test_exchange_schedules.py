"""Schedules of exchanges, known and usual ones."""

import threading
from datetime import date, datetime
from zoneinfo import ZoneInfo

import pytest

from providers.markets import exchange_schedules
from providers.markets.exchange_schedules import last_known_day, schedule_of
from tests.waiting import wait_until

INDIA = ZoneInfo("Asia/Kolkata")


@pytest.mark.parametrize(
    ("code", "last_day"), [("XBOM", date(2026, 12, 31)), ("XNYS", None), ("XIDX", date(2025, 12, 31))]
)
def test_calendars_end_is_known(code: str, last_day: date | None) -> None:
    assert last_known_day(code) == last_day


def test_usual_week_goes_on_where_a_calendar_ends() -> None:
    schedule = schedule_of("XBOM", 2027)
    assert schedule is not None
    assert schedule.is_usual
    assert schedule.close_by_day[date(2027, 1, 4)] == datetime(2027, 1, 4, 15, 30, tzinfo=INDIA)
    assert date(2027, 1, 3) not in schedule.close_by_day
    # Of the December before it the holidays are known still.
    assert date(2026, 12, 25) not in schedule.close_by_day
    assert list(schedule.opens) == sorted(schedule.opens)


def test_usual_week_has_its_lunch() -> None:
    schedule = schedule_of("XSHG", 2027)
    assert schedule is not None
    monday = [opens for opens in schedule.opens if opens.date() == date(2027, 1, 4)]
    assert [f"{opens:%H:%M}" for opens in monday] == ["01:30", "05:00"]


def test_known_years_are_not_usual() -> None:
    schedule = schedule_of("XNYS", 2026)
    assert schedule is not None
    assert not schedule.is_usual


def test_known_schedule_waits_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    assert schedule_of("XNYS", 2026)
    makes, may_end = threading.Event(), threading.Event()

    def make_slowly(_code: str, _year: int) -> None:
        makes.set()
        may_end.wait(30)

    monkeypatch.setattr(exchange_schedules, "_make", make_slowly)
    maker = threading.Thread(target=schedule_of, args=("XTKS", 1999))
    maker.start()
    assert makes.wait(10)
    reader = threading.Thread(target=schedule_of, args=("XNYS", 2026))
    reader.start()
    wait_until(lambda: not reader.is_alive(), what="the known schedule is given")
    assert maker.is_alive()
    may_end.set()
    maker.join()
    exchange_schedules._kept.pop(("XTKS", 1999))
