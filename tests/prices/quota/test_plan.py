from datetime import UTC, datetime
from fractions import Fraction

import pytest
from pytest_django import Settings

from prices.quota import NotConfigured, QuotaPlan, Target, all_blockers, plan_in_words, plan_of
from prices.quota.plan import figure, plan_of_active
from tests.conftest import MakeJob

NOW = datetime(2026, 11, 23, tzinfo=UTC)
CONTRACT = Target(["AAPL", "MSFT"], 60, "alpha_vantage")
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def keys(settings: Settings) -> None:
    settings.ALPHA_VANTAGE_API_KEY = settings.FINNHUB_API_KEY = "canary-key-123456"


def plan(target: Target) -> QuotaPlan:
    found = plan_of(target, now=NOW, fresh=True)
    assert isinstance(found, QuotaPlan)
    return found


def test_plan_of_contracts_example_names_all_figures() -> None:
    assert plan(CONTRACT) == QuotaPlan(
        provider="alpha_vantage",
        budget="25/1d",
        reserved_for_latest=5,
        in_use=Fraction(0),
        wanted_per_day=Fraction(2880),
        granted_per_day=Fraction(20),
        in_full=False,
        interval=60,
        effective_interval=2700,
        market_hours_only=True,
        shortest_interval=8640,
    )


@pytest.mark.parametrize(("interval", "in_full"), [(8639, False), (8640, True), (86_400, True)])
def test_plan_with_the_shortest_interval_is_in_full(interval: int, in_full: bool) -> None:
    assert plan(CONTRACT._replace(interval=interval)).in_full is in_full


@pytest.mark.parametrize("others", [1, 2, 6])
def test_shortest_interval_is_exact_beside_others(make_job: MakeJob, others: int) -> None:
    for number in range(others):
        make_job([f"{chr(65 + number)}"], interval=60, provider="alpha_vantage")
    shortest = plan(CONTRACT).shortest_interval
    # An equal part of 20 requests: 2 symbols x 86400 s / (20 / n).
    assert shortest == 2 * 86_400 * (others + 1) // 20
    assert plan(CONTRACT._replace(interval=shortest)).in_full
    assert not plan(CONTRACT._replace(interval=shortest - 1)).in_full


def test_plan_of_a_class_that_is_there_costs_nothing_more(make_job: MakeJob) -> None:
    make_job(["MSFT", "AAPL"], interval=60, provider="alpha_vantage")
    assert plan(CONTRACT).granted_per_day == 20
    assert plan(CONTRACT).in_use == 0


def test_plan_tells_how_much_others_want(make_job: MakeJob) -> None:
    make_job(["IBM"], interval=8640, provider="alpha_vantage")
    assert plan(CONTRACT).in_use == 10
    make_job(["GE"], interval=60, provider="alpha_vantage")
    assert plan(CONTRACT).in_use == 20


def test_plan_of_more_symbols_than_requests_has_no_interval() -> None:
    many = Target([f"A{chr(65 + number)}" for number in range(26)], 86_400, "alpha_vantage")
    assert plan(many).shortest_interval is None
    assert not plan(many).in_full
    assert "not even an interval of 86400 s (1 d) fits in full" in plan_in_words(plan(many))


def test_plan_by_the_minute_follows_no_market() -> None:
    many = plan(Target([f"A{chr(65 + number)}" for number in range(20)], 10, "finnhub"))
    assert (many.budget, many.reserved_for_latest, many.market_hours_only) == ("60/1m", 0, False)
    assert many.wanted_per_day == 2 * many.granted_per_day == 172_800
    assert (many.effective_interval, many.shortest_interval) == (20, 20)


def test_plan_without_a_limit_grants_all() -> None:
    simulated = plan(Target(["SIM-A"], 5, None))
    assert (simulated.provider, simulated.budget, simulated.in_full) == ("simulated", "none", True)
    assert simulated.wanted_per_day == simulated.granted_per_day == 17_280
    assert (simulated.effective_interval, simulated.shortest_interval) == (5, 1)


def test_plan_of_unknown_hours_is_spread_over_the_day() -> None:
    unknown = plan(Target(["XAU/USD"], 60, "alpha_vantage"))
    assert (unknown.effective_interval, unknown.market_hours_only) == (4320, False)


def test_plan_of_less_than_a_poll_a_day_counts_the_nights(make_job: MakeJob) -> None:
    for number in range(39):
        make_job([f"A{chr(65 + number % 26)}{chr(65 + number // 26)}"], provider="alpha_vantage")
    # Half a request a day.
    assert plan(Target(["IBM"], 60, "alpha_vantage")).effective_interval == 2 * 86_400


@pytest.mark.parametrize("provider", ["finnhub", "alpha_vantage"])
def test_plan_without_key_names_the_variable(settings: Settings, provider: str) -> None:
    variable = f"{provider.upper()}_API_KEY"
    setattr(settings, variable, "")
    found = plan_of(Target(["AAPL"], 60, provider), now=NOW)
    assert found == NotConfigured(provider, variable)
    assert str(found) == f"not configured: set {variable}"


def test_blockers_tell_what_the_budget_withholds(make_job: MakeJob) -> None:
    job = make_job(["AAPL", "MSFT"], interval=60, provider="alpha_vantage")
    (blocker,) = all_blockers(job, plan_of_active(job, now=NOW), now=NOW)
    assert blocker == (
        "budget: 20 of 2,880 requests a day: each symbol every 45 min while its markets are open;"
        " the shortest interval that fits in full is 8640 s (2 h 24 min) (budget: 25 requests a day)"
    )


def test_blockers_of_a_job_that_fits_are_none(make_job: MakeJob) -> None:
    job = make_job(["AAPL"], interval=8640, provider="alpha_vantage")
    assert all_blockers(job, plan_of_active(job, now=NOW), now=NOW) == []


def test_plan_of_a_job_switched_off_is_none(make_job: MakeJob) -> None:
    job = make_job(["AAPL"], provider="alpha_vantage")
    job.periodic_task.enabled = False
    assert plan_of_active(job, now=NOW) is None


def test_plan_sees_a_job_that_was_created_a_moment_ago(make_job: MakeJob) -> None:
    plan_of_active(make_job(["AAPL"], interval=60, provider="alpha_vantage"), now=NOW)
    make_job(["IBM"], interval=60, provider="alpha_vantage")
    third = plan_of_active(make_job(["GE"], interval=60, provider="alpha_vantage"), now=NOW)
    assert isinstance(third, QuotaPlan)
    assert third.granted_per_day == Fraction(20, 3)


def test_plan_of_a_paused_job_is_none(make_job: MakeJob) -> None:
    job = make_job(["AAPL"], provider="alpha_vantage")
    job.status = "paused"
    assert plan_of_active(job, now=NOW) is None


@pytest.mark.parametrize(
    ("number", "shown"), [(Fraction(20), 20), (Fraction(20, 3), 6.667), (Fraction(1, 500), 0.002)]
)
def test_figure_is_whole_or_has_three_decimals(number: Fraction, shown: float) -> None:
    assert figure(number) == shown
    assert type(figure(Fraction(20))) is int
