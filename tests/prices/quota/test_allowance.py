"""What the service knows of active jobs, and what it tells the poller."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from prices.jobs.services import create_job, pause_job, resume_job, stop_job
from prices.models import PollJob
from prices.quota import allowance_of, plan_in_words, plan_of
from prices.quota.allowance import REUSE
from prices.quota.demand import demand_of, key_of, load_demands
from tests.conftest import ChangeJob, MakeJob

NOW = datetime(2026, 11, 23, tzinfo=UTC)
LATER = NOW + REUSE
NIGHT = datetime(2026, 11, 23, 3, tzinfo=UTC)
pytestmark = pytest.mark.django_db


def contract_job(make_job: MakeJob) -> PollJob:
    job = make_job(["AAPL", "MSFT"], interval=60, provider="alpha_vantage")
    job.last_run_at = NOW
    return job


def test_demands_of_equal_jobs_are_one(make_job: MakeJob) -> None:
    first = make_job(["AAPL", "MSFT"], interval=60, provider="finnhub")
    make_job(["MSFT", "AAPL"], interval=60, provider="finnhub")
    make_job(["MSFT", "AAPL"], interval=61, provider="finnhub")
    make_job(["MSFT", "AAPL"], interval=60, provider="yfinance")
    demands = load_demands("finnhub")
    assert len(demands) == 2
    assert (demands[key_of(first)].requests, demands[key_of(first)].jobs) == (2, 2)


def test_demands_of_jobs_without_provider_are_those_of_the_chosen_one(
    make_job: MakeJob, settings: Settings
) -> None:
    settings.PROVIDER_ORDER = ["finnhub", "yfinance"]
    settings.FINNHUB_API_KEY = ""
    chosen = make_job(["AAPL"], provider=None)
    simulated = make_job(["SIM-A"], provider=None)
    assert list(load_demands("yfinance")) == [key_of(chosen)]
    assert list(load_demands("simulated")) == [key_of(simulated)]
    assert load_demands("finnhub") == {}


@pytest.mark.parametrize("change", [pause_job, stop_job])
def test_demand_ends_with_the_job(make_job: MakeJob, change: ChangeJob) -> None:
    job = make_job(["AAPL"], provider="finnhub")
    change(job.id)
    assert load_demands("finnhub") == {}


def test_demand_ends_where_the_task_is_switched_off(make_job: MakeJob) -> None:
    job = make_job(["AAPL"], provider="finnhub")
    job.periodic_task.enabled = False
    job.periodic_task.save()
    assert load_demands("finnhub") == {}


def test_demand_of_yahoo_is_one_request_for_fifty_symbols(make_job: MakeJob) -> None:
    job = make_job([f"S{number}" for number in range(60)], provider="yfinance")
    assert demand_of(key_of(job), "yfinance").requests == 2


def test_allowance_without_a_limit_asks_nobody(
    make_job: MakeJob, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    job = make_job(["SIM-A", "SIM-B"])
    with django_assert_num_queries(0):
        assert allowance_of("simulated", now=NOW).symbols_at(job, NOW) == ("SIM-A", "SIM-B")


def test_allowance_withholds_and_says_why(make_job: MakeJob) -> None:
    job = contract_job(make_job)
    allowance = allowance_of("alpha_vantage", now=NOW)
    assert allowance.symbols_at(job, NIGHT) == ()
    assert allowance.over_budget_reason(job) == (
        "budget: each symbol is asked for every 45 min while its markets are open, not every 1 min"
    )


def test_allowance_of_all_slots_in_open_hours_says_so(make_job: MakeJob) -> None:
    # 24 requests by day and night are too many, those of the 7.5 open hours are not.
    job = make_job(["AAPL"], interval=3600, provider="alpha_vantage")
    job.last_run_at = NOW
    allowance = allowance_of("alpha_vantage", now=NOW)
    assert allowance.symbols_at(job, NIGHT) == ()
    assert allowance.symbols_at(job, NOW + timedelta(hours=16)) == ("AAPL",)
    assert allowance.over_budget_reason(job) == (
        "budget: nothing is asked for while all of the job's markets are closed"
    )


def test_allowance_that_is_nearly_enough_speaks_of_no_closed_markets(
    make_job: MakeJob, settings: Settings
) -> None:
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"finnhub": "60/1m"}
    settings.FINNHUB_API_KEY = "canary-key-123456"
    jobs = [make_job([f"C{number}"], interval=60, provider="finnhub") for number in range(60)]
    make_job(["OTHER"], interval=300, provider="finnhub")
    allowance = allowance_of("finnhub", now=NOW)
    assert allowance.grant_of(key_of(jobs[0])).interval_s == 60
    assert allowance.over_budget_reason(jobs[0]) == (
        "budget: now and then a slot is left out, so that jobs keep within it"
    )
    plan = plan_of(jobs[0], now=NOW)
    assert "each symbol every 1 min, but for a slot now and then;" in plan_in_words(plan)


def test_allowance_grants_a_first_poll_by_night_too(make_job: MakeJob) -> None:
    job = contract_job(make_job)
    job.last_run_at = None
    assert allowance_of("alpha_vantage", now=NOW).symbols_at(job, NIGHT) == ("AAPL", "MSFT")


def test_allowance_of_nothing_says_so(make_job: MakeJob, settings: Settings) -> None:
    settings.LATEST_BUDGET_SHARE_PERCENT = 100
    job = contract_job(make_job)
    allowance = allowance_of("alpha_vantage", now=NOW)
    assert allowance.over_budget_reason(job) == "budget: GET latest keeps all of it"
    assert allowance.shortest_interval(key_of(job)) is None


def test_allowance_holds_back_no_job_that_it_does_not_know(make_job: MakeJob) -> None:
    contract_job(make_job)
    allowance = allowance_of("alpha_vantage", now=NOW)
    other = contract_job(make_job)
    other.interval = 61
    assert allowance.symbols_at(other, NIGHT) == ("AAPL", "MSFT")


def test_allowance_is_reused_for_a_while_without_a_query(
    make_job: MakeJob, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    contract_job(make_job)
    first = allowance_of("alpha_vantage", now=NOW)
    with django_assert_num_queries(0):
        assert allowance_of("alpha_vantage", now=LATER - timedelta(milliseconds=1)) is first


def test_allowance_is_reused_where_no_job_has_changed(
    make_job: MakeJob, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    contract_job(make_job)
    first = allowance_of("alpha_vantage", now=NOW)
    with django_assert_num_queries(1):
        assert allowance_of("alpha_vantage", now=LATER) is first
    assert allowance_of("alpha_vantage", now=NOW + timedelta(hours=1)) is not first


@pytest.mark.django_db(transaction=True)
def test_allowance_sees_every_change_of_a_job(make_job: MakeJob) -> None:
    job = contract_job(make_job)
    moment = NOW

    def known() -> int:
        nonlocal moment
        moment += REUSE
        return len(allowance_of("alpha_vantage", now=moment).demands)

    assert known() == 1
    create_job(symbols=["IBM"], interval=60, provider="alpha_vantage")
    assert known() == 2
    pause_job(job.id)
    assert known() == 1
    resume_job(job.id)
    assert known() == 2
    stop_job(job.id)
    assert known() == 1
    task = PollJob.objects.exclude(id=job.id).get().periodic_task
    task.enabled = False
    task.save()
    assert known() == 0


def test_allowance_of_a_clock_set_back_is_read_anew(make_job: MakeJob) -> None:
    now = timezone.now()
    contract_job(make_job)
    first = allowance_of("alpha_vantage", now=now)
    assert allowance_of("alpha_vantage", now=now - timedelta(hours=1)) is not first
