"""Polls of jobs with `market_hours`."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from pytest_django import Settings

from prices.jobs.services import create_job
from prices.models import PollJob, PollRun, PricePoint
from prices.polling.handover import take_over, to_message
from prices.polling.poll import claim_and_poll
from providers.simulator.simulator import Simulator
from tests.polling import poll_job

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("topic")]
NEW_YORK = ZoneInfo("America/New_York")
SATURDAY = datetime(2026, 11, 21, 12, tzinfo=UTC)
NOON = datetime(2026, 11, 23, 12, tzinfo=NEW_YORK)
NIGHT = datetime(2026, 11, 23, 19, 30, tzinfo=NEW_YORK)
MINUTE = timedelta(minutes=1)
CLOSED = "market_closed: not asked for outside its market's hours"


def make_job(*symbols: str, provider: str | None = "finnhub") -> PollJob:
    """Return a job of a minute that was created on a Saturday."""
    return create_job(symbols=symbols, interval=60, provider=provider, market_hours=True, now=SATURDAY)


def with_first_price(job: PollJob) -> PollJob:
    PollJob.objects.filter(id=job.id).update(market_hours_from=SATURDAY, last_run_at=SATURDAY)
    return job


def asked(simulator: Simulator) -> list[str]:
    """Return the symbols asked for since the last look."""
    # Yahoo's cookie and crumb are of no symbol.
    found = sorted(received.symbol for received in simulator.requests() if received.symbol)
    simulator.forget_requests()
    # What came a moment ago would be shared.
    PricePoint.objects.update(received_at=SATURDAY)
    return found


def test_each_symbol_is_asked_for_in_its_own_hours(simulator: Simulator) -> None:
    job = with_first_price(make_job("AAPL", "7203.T"))
    assert poll_job(job.id, now=NOON) == "stored"
    assert asked(simulator) == ["AAPL"]
    run = PollRun.objects.get()
    assert (run.points, run.reason) == (1, f"7203.T: {CLOSED}")
    job.refresh_from_db()
    # To wait for a market is no failure.
    assert (job.failures, job.last_error) == (0, "")
    # 09:30 in Tokyo.
    assert poll_job(job.id, now=NIGHT) == "stored"
    assert asked(simulator) == ["7203.T"]


def test_nothing_is_claimed_or_asked_for_while_all_markets_are_closed(simulator: Simulator) -> None:
    job = with_first_price(make_job("AAPL"))
    for moment in (SATURDAY + MINUTE, NIGHT):
        assert claim_and_poll([job.id], now=moment).states == {}
    assert asked(simulator) == []
    assert not PollRun.objects.exists()


def test_last_slot_is_the_one_after_an_hour_from_the_close(simulator: Simulator) -> None:
    job = with_first_price(make_job("AAPL"))
    after_close = NOON.replace(hour=17)
    # Its slots are some seconds after each minute.
    for number, expected in {0: ["AAPL"], 1: ["AAPL"], 2: [], 3: []}.items():
        poll_job(job.id, now=after_close + number * MINUTE)
        assert asked(simulator) == expected


def test_new_job_is_polled_at_any_hour_until_its_first_price(simulator: Simulator) -> None:
    job = make_job("AAPL", "7203.T")
    simulator.change(not_entitled=True)
    assert poll_job(job.id, now=SATURDAY) == "failed"
    simulator.change(not_entitled=False)
    simulator.forget_requests()
    assert poll_job(job.id, now=SATURDAY + MINUTE) == "stored"
    assert asked(simulator) == ["7203.T", "AAPL"]
    run = PollRun.objects.latest("due_at")
    assert (run.points, run.reason) == (2, "")
    job.refresh_from_db()
    assert job.market_hours_from == run.due_at
    assert poll_job(job.id, now=SATURDAY + 2 * MINUTE) is None
    assert asked(simulator) == []


def test_closed_symbol_is_told_at_the_next_provider_too(simulator: Simulator, settings: Settings) -> None:
    settings.PROVIDER_ORDER = ["finnhub", "yfinance"]
    job = with_first_price(make_job("AAPL", "7203.T", provider=None))
    simulator.change(provider="finnhub", not_entitled=True)
    ((provider, runs),) = claim_and_poll([job.id], now=NOON).go_on.items()
    assert take_over(provider, [to_message(run) for run in runs]).states == {job.id: "stored"}
    assert asked(simulator) == ["AAPL", "AAPL"]
    assert PollRun.objects.get().reason == f"7203.T: {CLOSED}"


def test_closed_symbol_leaves_a_failure_of_others_as_it_is(simulator: Simulator) -> None:
    job = with_first_price(make_job("AAPL", "7203.T"))
    simulator.change(invalid_key=True)
    assert poll_job(job.id, now=NOON) == "failed"
    job.refresh_from_db()
    assert job.failures == 1
    assert job.last_error.startswith("AAPL: finnhub: ")
    assert "market_closed" not in job.last_error
    assert CLOSED in PollRun.objects.get().reason


def test_job_of_another_user_without_hours_is_asked_all_the_same(simulator: Simulator) -> None:
    closed = with_first_price(make_job("AAPL"))
    other = create_job(symbols=["AAPL"], interval=60, provider="finnhub", now=SATURDAY)
    assert claim_and_poll([closed.id, other.id], now=SATURDAY + MINUTE).states == {other.id: "stored"}
