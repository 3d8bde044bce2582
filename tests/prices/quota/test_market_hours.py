"""What a budget carries of jobs that are polled in market hours alone."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from prices.ledger.grid import next_slot, phase_of
from prices.ledger.market_hours import symbols_at
from prices.models import PollJob
from prices.quota import BeyondBudgetError, QuotaPlan, Target, create_planned_job, plan_in_words, plan_of
from prices.quota.demand import key_of
from prices.quota.overview import read_overview
from tests.conftest import MakeJob
from tests.prices.quota.simulation import MONDAY, job_of, most_in_a_window, share

# A Monday: New York opens at 14:30 and is asked until 22:00, for seven and a half hours.
NOW = datetime(2026, 11, 23, tzinfo=UTC)
HOURLY = Target(["AAPL"], 3600, "alpha_vantage", market_hours=True)
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def keys(settings: Settings) -> None:
    settings.ALPHA_VANTAGE_API_KEY = settings.FINNHUB_API_KEY = "canary-key-123456"


def plan(target: Target) -> QuotaPlan:
    found = plan_of(target, now=NOW, fresh=True)
    assert isinstance(found, QuotaPlan)
    return found


def in_hours(symbols: list[str], interval: int, provider: str = "alpha_vantage") -> PollJob:
    """Return a job that has its first price."""
    job = job_of(symbols, interval, provider)
    job.market_hours, job.market_hours_from = True, MONDAY - 30 * DAY
    return job


@pytest.mark.django_db
def test_plan_counts_the_hours_and_the_slot_after_them() -> None:
    found = plan(HOURLY)
    assert found.wanted_per_day == found.granted_per_day == Fraction(17, 2)
    assert (found.in_full, found.market_hours_only, found.effective_interval) == (True, True, 3600)
    assert plan_in_words(found) == "all of its 8.5 requests a trading day (budget: 25 requests a day)"
    always = plan(HOURLY._replace(market_hours=False))
    assert (always.in_full, always.wanted_per_day) == (False, Fraction(24))


@pytest.mark.django_db
def test_strict_job_that_fits_in_its_hours_is_created() -> None:
    with pytest.raises(BeyondBudgetError):
        create_planned_job(HOURLY._replace(market_hours=False), strict=True, now=NOW)
    job, _ = create_planned_job(HOURLY, strict=True, now=NOW)
    assert job.market_hours


@pytest.mark.django_db
@pytest.mark.parametrize("others", [0, 1, 2, 6])
def test_shortest_interval_is_exact(make_job: MakeJob, others: int) -> None:
    for number in range(others):
        make_job([f"{chr(65 + number)}"], interval=60, provider="alpha_vantage", market_hours=number % 2 == 0)
    shortest = plan(HOURLY).shortest_interval
    assert shortest is not None
    assert plan(HOURLY._replace(interval=shortest)).in_full
    assert not plan(HOURLY._replace(interval=shortest - 1)).in_full


@pytest.mark.django_db
def test_job_that_wants_more_than_there_is_takes_turns_as_others_do() -> None:
    beyond = plan(HOURLY._replace(interval=60))
    assert (beyond.in_full, beyond.effective_interval, beyond.market_hours_only) == (False, 1350, True)
    assert beyond.granted_per_day == 20
    assert beyond.wanted_per_day == 451


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("provider", "budget", "share"),
    [("yfinance", "none", 1), ("finnhub", "60/1m", 1), ("finnhub", "1/2m", 2)],
)
def test_figures_of_other_budgets_are_of_a_trading_day(
    settings: Settings, provider: str, budget: str, share: int
) -> None:
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {provider: budget}
    found = plan(Target(["AAPL"], 60, provider, market_hours=True))
    assert (found.wanted_per_day, found.granted_per_day) == (Fraction(451), Fraction(451, share))
    assert (found.in_full, found.market_hours_only) == (share == 1, True)


@pytest.mark.django_db
@pytest.mark.parametrize("symbols", [["XAU/USD"], ["AAPL", "XAU/USD"]])
def test_symbols_in_unknown_hours_count_always(symbols: list[str]) -> None:
    found = plan(HOURLY._replace(symbols=symbols))
    assert found == plan(HOURLY._replace(symbols=symbols, market_hours=False))
    assert not found.market_hours_only


@pytest.mark.django_db
def test_job_fits_once_others_are_counted_for_their_turns(make_job: MakeJob, settings: Settings) -> None:
    # 864 at all hours would leave less than 451 of 800, 271 in its turns leave more.
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"alpha_vantage": "1000/1d"}
    make_job(["MSFT"], interval=100, provider="alpha_vantage")
    found = plan(HOURLY._replace(interval=60))
    assert (found.in_full, found.granted_per_day) == (True, Fraction(451))


@pytest.mark.django_db
def test_job_without_provider_counts_in_the_hours_that_it_has(settings: Settings) -> None:
    # As Alpha Vantage writes London, which Finnhub does not know: from 8:00 to 16:30, and an hour more.
    settings.PROVIDER_ORDER = ["finnhub"]
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"finnhub": "25/1d"}
    found = plan(Target(["VOD.LON"], 3600, None, market_hours=True))
    assert (found.provider, found.in_full, found.wanted_per_day) == ("finnhub", True, Fraction(21, 2))


@pytest.mark.django_db
def test_overview_counts_the_hours(make_job: MakeJob) -> None:
    make_job(["AAPL"], interval=3600, provider="alpha_vantage", market_hours=True)
    overview = read_overview(["alpha_vantage"], now=NOW)
    assert overview.budgets[0].wanted == Fraction(17, 2)
    (job,) = overview.jobs
    assert isinstance(job.plan, QuotaPlan)
    assert job.plan.in_full


JOBS = st.lists(
    st.tuples(
        st.sampled_from([["AAPL"], ["IBM", "GE"], ["VOD.LON"], ["AAPL", "VOD.LON"], ["EUR/USD"]]),
        st.sampled_from([1800, 3600, 5000, 20_000, 86_400]),
    ),
    min_size=1,
    max_size=4,
    unique_by=str,
)


@given(JOBS)
def test_jobs_that_fit_ask_for_no_more_than_was_counted(
    settings: Settings, kinds: list[tuple[list[str], int]]
) -> None:
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"alpha_vantage": "1000/1d"}
    jobs = [in_hours(symbols, interval) for symbols, interval in kinds]
    allowance = share(jobs)
    assert all(allowance.grant_of(key_of(job)).in_full for job in jobs)
    for job in jobs:
        due_at = next_slot(MONDAY, job.interval, phase_of(job.provider, job.interval, job.symbols))
        times = []
        while due_at < MONDAY + 14 * DAY:
            asked = set(symbols_at(job, due_at)) & set(allowance.symbols_at(job, due_at))
            times += [due_at] * len(asked)
            due_at += timedelta(seconds=job.interval)
        counted = ceil(allowance.grant_of(key_of(job)).wanted)
        # Slots are whole: a window that holds the end of a session and the beginning of another has one more.
        assert most_in_a_window(times, DAY - timedelta(microseconds=1)) <= counted + len(job.symbols)
