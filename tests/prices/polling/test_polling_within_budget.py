from datetime import UTC, datetime, timedelta

import pytest
from pytest_django import Settings

from prices.jobs.services import provider_of
from prices.ledger.grid import phase_of, slot_at
from prices.models import PollJob, PollRun, PricePoint
from prices.polling.poll import claim_and_poll
from prices.quota import allowance_of, plan_of
from providers.simulator.simulator import Simulator
from tests.conftest import MakeJob

pytestmark = pytest.mark.django_db(transaction=True)
NOW = datetime.now(UTC)


def poll_each_slot(jobs: list[PollJob], *, slots: int) -> None:
    for number in range(slots):
        for job in jobs:
            claim_and_poll([job.id], now=NOW + timedelta(seconds=number * job.interval))
        PricePoint.objects.update(received_at=NOW - timedelta(minutes=5))


def test_job_beyond_its_budget_is_polled_once_and_then_as_planned(
    make_job: MakeJob, simulator: Simulator, topic: str
) -> None:
    job = make_job(["IBM", "AAPL"], interval=60, provider="alpha_vantage")
    poll_each_slot([job], slots=5)
    first, *later = PollRun.objects.order_by("due_at")
    assert (first.state, first.points) == ("stored", 2)
    skipped = [run for run in later if run.state == "skipped"]
    # In five minutes there is room for one request at most.
    assert len(skipped) >= 3
    assert all(run.reason.startswith("alpha_vantage: budget: ") for run in skipped)
    job.refresh_from_db()
    # To wait for its turn is no failure.
    assert (job.failures, job.last_error) == (0, "")


def test_slot_whose_turn_has_come_for_one_symbol_says_what_is_left_out(
    make_job: MakeJob, simulator: Simulator, settings: Settings, topic: str
) -> None:
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"finnhub": "60/1m"}
    job = make_job([f"S{number}" for number in range(20)], interval=10, provider="finnhub")
    PollJob.objects.update(last_run_at=NOW)
    claim_and_poll([job.id], now=NOW)
    run = PollRun.objects.get()
    # A hundredth of the budget is left unused: one slot in ten asks for one less.
    assert run.state == "stored"
    assert run.points in (9, 10)
    assert "budget: each symbol is asked for every 20 s, not every 10 s" in run.reason
    due_at = slot_at(NOW, 10, phase_of("finnhub", 10, job.symbols))
    job.refresh_from_db()
    granted = allowance_of("finnhub", now=NOW).symbols_at(job, due_at)
    assert sorted(PricePoint.objects.values_list("symbol", flat=True)) == sorted(granted)


def test_withheld_symbol_takes_the_price_that_another_job_asks_for(
    make_job: MakeJob, simulator: Simulator, settings: Settings, topic: str
) -> None:
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"finnhub": "12/1m"}
    rich = make_job(["A"], interval=60, provider="finnhub")
    poor = make_job(["A", "B", "C"], interval=1, provider="finnhub")
    PollJob.objects.filter(id=poor.id).update(last_run_at=NOW)
    allowance = allowance_of("finnhub", now=NOW)
    poor.refresh_from_db()
    slot = slot_at(NOW, 1, phase_of("finnhub", 1, poor.symbols))
    while allowance.symbols_at(poor, slot):
        slot += timedelta(seconds=1)
    states = claim_and_poll([poor.id, rich.id], now=slot).states
    assert states == {poor.id: "shared", rich.id: "stored"}
    assert len(simulator.requests()) == 1


def test_plan_follows_a_job_to_the_provider_that_serves_it(
    make_job: MakeJob, settings: Settings, simulator: Simulator
) -> None:
    job = make_job(["AAPL"], interval=60, provider=None)
    assert provider_of(job) == "finnhub"
    job.served_by = "alpha_vantage"
    job.save()
    plan = plan_of(job, now=NOW, fresh=True)
    assert plan.provider == "alpha_vantage"
    assert not allowance_of("finnhub", now=NOW).demands
    assert len(allowance_of("alpha_vantage", now=NOW).demands) == 1
