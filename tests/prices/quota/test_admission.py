import threading
from datetime import UTC, datetime

import pytest
from django.db import connection
from pytest_django import Settings

from prices.models import PollJob
from prices.quota import (
    BeyondBudgetError,
    NotConfigured,
    QuotaPlan,
    StrictKeyError,
    Target,
    change_planned_job,
    create_planned_job,
    read_allowance,
)

NOW = datetime(2026, 11, 23, tzinfo=UTC)
CONTRACT = Target(["AAPL", "MSFT"], 60, "alpha_vantage")
FITS = CONTRACT._replace(interval=8640)


@pytest.fixture(autouse=True)
def keys(settings: Settings) -> None:
    settings.ALPHA_VANTAGE_API_KEY = settings.FINNHUB_API_KEY = "canary-key-123456"


@pytest.mark.django_db
def test_job_beyond_the_budget_is_created_with_its_plan() -> None:
    job, plan = create_planned_job(CONTRACT, strict=False, now=NOW)
    assert PollJob.objects.get() == job
    assert isinstance(plan, QuotaPlan)
    assert not plan.in_full


@pytest.mark.django_db
def test_strict_job_beyond_the_budget_is_not_created() -> None:
    with pytest.raises(BeyondBudgetError) as caught:
        create_planned_job(CONTRACT, strict=True, now=NOW)
    assert caught.value.plan.shortest_interval == 8640
    assert not PollJob.objects.exists()


@pytest.mark.django_db
def test_strict_job_beyond_its_equal_part_is_not_created() -> None:
    create_planned_job(FITS, strict=True, now=NOW)
    half = Target(["IBM"], 8640, "alpha_vantage")
    with pytest.raises(BeyondBudgetError) as caught:
        create_planned_job(half._replace(interval=8639), strict=True, now=NOW)
    assert caught.value.plan.shortest_interval == 8640
    create_planned_job(half, strict=True, now=NOW)
    assert PollJob.objects.count() == 2


@pytest.mark.django_db
def test_setting_makes_every_job_strict(settings: Settings) -> None:
    settings.QUOTA_STRICT = True
    with pytest.raises(BeyondBudgetError):
        create_planned_job(CONTRACT, strict=False, now=NOW)


@pytest.mark.django_db
def test_job_of_provider_without_key_is_created_and_strictly_not(settings: Settings) -> None:
    settings.FINNHUB_API_KEY = ""
    target = Target(["AAPL"], 60, "finnhub")
    _, plan = create_planned_job(target, strict=False, now=NOW)
    assert plan == NotConfigured("finnhub", "FINNHUB_API_KEY")
    with pytest.raises(StrictKeyError):
        create_planned_job(target, strict=True, now=NOW)
    assert PollJob.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_many_strict_jobs_at_once_only_what_fits_is_created() -> None:
    refused = []

    def create(number: int) -> None:
        target = Target([f"S{number}", f"T{number}"], 17_280, "alpha_vantage")
        try:
            create_planned_job(target, strict=True, now=NOW)
        except BeyondBudgetError as error:
            refused.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=create, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # 10 requests a day each, of 20.
    assert PollJob.objects.count() == 2
    assert len(refused) == 6


@pytest.mark.django_db(transaction=True)
def test_change_of_symbols_changes_what_the_budget_is_shared_among() -> None:
    job, _ = create_planned_job(FITS, strict=False, now=NOW)

    def symbols_wanted() -> list[tuple[str, ...]]:
        return [key.symbols for key in read_allowance("alpha_vantage", now=NOW).demands]

    assert symbols_wanted() == [("AAPL", "MSFT")]
    change_planned_job(job.id, symbols=["IBM"], strict=False, now=NOW)
    assert symbols_wanted() == [("IBM",)]


@pytest.mark.django_db(transaction=True)
def test_strict_change_is_refused_only_where_it_takes_more() -> None:
    beyond, _ = create_planned_job(FITS._replace(interval=60), strict=False, now=NOW)
    fitting, _ = create_planned_job(Target(["IBM"], 8640, "alpha_vantage"), strict=False, now=NOW)
    change_planned_job(beyond.id, symbols=["AAPL"], strict=True, now=NOW)
    with pytest.raises(BeyondBudgetError):
        change_planned_job(beyond.id, symbols=["MSFT"], strict=True, now=NOW)
    with pytest.raises(BeyondBudgetError):
        change_planned_job(fitting.id, symbols=["IBM", "MSFT"], strict=True, now=NOW)
    # Two together, in twice the time.
    change_planned_job(fitting.id, symbols=["IBM", "MSFT"], interval=17_280, strict=True, now=NOW)
    assert [job.symbols for job in PollJob.objects.order_by("id")] == [["AAPL"], ["IBM", "MSFT"]]
