"""PostgreSQL's clock, and processes whose own clock differs from it."""

from datetime import timedelta

import pytest
from django.utils import timezone

from prices import clock
from prices.clock import database_now, differing_clocks, name_process, read_clock
from prices.models import ClockDifference

pytestmark = pytest.mark.django_db


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
