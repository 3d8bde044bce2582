"""PostgreSQL's clock, and processes whose own clock differs from it."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from prices import clock
from prices.clock import (
    READ_AGAIN_S,
    Reading,
    database_now,
    differing_clocks,
    name_process,
    read_clock,
    recent_now,
)
from prices.models import ClockDifference

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_own", clock._OwnClock())
    name_process("web")


def shift(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Move this process's clock; PostgreSQL's stays."""
    right = timezone.now
    monkeypatch.setattr(timezone, "now", lambda: right() + timedelta(seconds=seconds))


def test_reading_goes_on_and_is_never_ahead() -> None:
    reading = read_clock()
    first = reading.now
    assert first <= reading.now <= database_now()


def test_recent_time_is_read_once_for_many_threads_and_goes_on_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read_at: list[float] = []

    def read_noon() -> Reading:
        read_at.append(time.monotonic())
        return Reading(NOON, read_at[-1])

    monkeypatch.setattr(clock, "_recent", clock._Recent())
    monkeypatch.setattr(clock, "read_clock", read_noon)
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda _: recent_now(), range(1_000)))
    took_s = time.monotonic() - began
    assert all(NOON <= now <= NOON + timedelta(seconds=took_s) for now in told)
    assert len(read_at) <= 1 + took_s / READ_AGAIN_S


def test_recent_time_is_read_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_recent", clock._Recent())
    monkeypatch.setattr(clock, "READ_AGAIN_S", 0)
    for _ in range(2):
        before = database_now()
        assert before <= recent_now() <= database_now()


def test_process_whose_clock_agrees_is_not_noted() -> None:
    database_now()
    assert differing_clocks() == []


@pytest.mark.parametrize("seconds", [8, -8, 3600])
def test_process_whose_clock_differs_is_noted(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    with monkeypatch.context() as shifted:
        shift(shifted, seconds)
        database_now()
        (found,) = differing_clocks()
    assert found.process.startswith("web@")
    assert found.ahead_s == pytest.approx(seconds, abs=1)


def test_difference_is_forgotten_after_a_minute() -> None:
    long_ago = timezone.now() - timedelta(seconds=61)
    ClockDifference.objects.create(process="beat@x", ahead_s=8, noted_at=long_ago)
    assert differing_clocks() == []
