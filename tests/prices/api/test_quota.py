"""What the REST interface tells of budgets: the header, the job's detail, and strict refusals."""

import json
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpResponse
from pytest_django import DjangoAssertNumQueries, Settings
from rest_framework.test import APIClient

from prices.jobs.services import pause_job
from prices.models import PollJob
from tests.conftest import MakeJob

CONTRACT = {"symbols": ["AAPL", "MSFT"], "interval": 60, "provider": "alpha_vantage"}
# 20 requests for 2 symbols in 7.5 hours: New York's 6.5 and the one after.
PLAN = {
    "provider": "alpha_vantage",
    "budget": "25/1d",
    "reserved_for_latest": 5,
    "in_use": 0,
    "wanted_per_day": 2880,
    "granted_per_day": 20,
    "in_full": False,
    "interval": 60,
    "effective_interval": 2700,
    "market_hours_only": True,
    "shortest_interval": 8640,
}
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def keys(settings: Settings) -> None:
    settings.ALPHA_VANTAGE_API_KEY = settings.FINNHUB_API_KEY = "canary-key-123456"


def poll(api: APIClient, body: dict[str, Any] | None = None, *, query: str = "") -> HttpResponse:
    # The stubs know bodies as text only.
    client: Any = api
    answer: HttpResponse = client.post(f"/prices/poll{query}", CONTRACT | (body or {}), format="json")
    return answer


def members(header: str) -> dict[str, Any]:
    """Read a structured dictionary of bare items (RFC 9651), as far as it is used here."""
    words = {"?0": False, "?1": True}
    pairs = (member.split("=", 1) for member in header.split(", "))
    return {name: words.get(value) if value in words else json.loads(value) for name, value in pairs}


def test_contracts_example_is_accepted_with_its_plan(api: APIClient) -> None:
    answer = poll(api)
    assert answer.status_code == 202
    assert members(answer["Quota-Plan"]) == PLAN
    assert list(json.loads(answer.content)) == ["job_id", "status", "config"]


def test_header_is_written_as_the_readme_says(api: APIClient, settings: Settings) -> None:
    readme = (Path(settings.BASE_DIR) / "README.md").read_text()
    assert f"\nQuota-Plan: {poll(api)['Quota-Plan']}\n" in readme
    assert [name for name in PLAN if name not in {"provider", "interval"} and f"`{name}`" not in readme] == []


def test_header_of_a_plan_without_an_interval_leaves_it_out(api: APIClient) -> None:
    symbols = [f"A{chr(65 + number)}" for number in range(26)]
    found = members(poll(api, {"symbols": symbols})["Quota-Plan"])
    assert "shortest_interval" not in found
    assert found["granted_per_day"] == 20


def test_header_of_a_simulated_job_grants_all(api: APIClient) -> None:
    body = {"symbols": ["SIM-A"], "interval": 5, "provider": "simulated"}
    found = members(poll(api, body)["Quota-Plan"])
    assert (found["budget"], found["in_full"], found["granted_per_day"]) == ("none", True, 17_280)


def test_header_of_provider_without_key_names_the_variable(api: APIClient, settings: Settings) -> None:
    settings.FINNHUB_API_KEY = ""
    answer = poll(api, {"provider": "finnhub"})
    assert answer.status_code == 202
    assert answer["Quota-Plan"] == "not configured: set FINNHUB_API_KEY"
    detail = api.get(f"/jobs/{json.loads(answer.content)['job_id']}").json()
    assert detail["quota_plan"] == {"not_configured": "set FINNHUB_API_KEY"}
    assert detail["blocked_by"] == ["not configured: set FINNHUB_API_KEY"]


def test_second_job_sees_what_the_first_wants(api: APIClient) -> None:
    poll(api)
    found = members(poll(api, {"symbols": ["IBM"]})["Quota-Plan"])
    assert (found["in_use"], found["granted_per_day"]) == (20, 10)


def test_detail_has_the_plan_and_what_blocks(api: APIClient) -> None:
    job_id = json.loads(poll(api).content)["job_id"]
    detail = api.get(f"/jobs/{job_id}").json()
    assert detail["quota_plan"] == PLAN
    (blocker,) = detail["blocked_by"]
    assert blocker.startswith("budget: 20 of 2,880 requests a day: each symbol every 45 min")


def test_detail_of_a_job_that_is_not_active_has_no_plan(api: APIClient, make_job: MakeJob) -> None:
    job = make_job(["AAPL"], provider="alpha_vantage")
    pause_job(job.id)
    assert api.get(f"/jobs/{job.id}").json()["quota_plan"] is None


def test_jobs_tell_blockers_without_a_query_a_row(
    api: APIClient, make_job: MakeJob, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(5):
        make_job([f"{chr(65 + number)}"], interval=60, provider="alpha_vantage")
    # The page; whether a job has changed; the active jobs; the time, where it was read over a second ago.
    with django_assert_max_num_queries(4):
        rows = api.get("/jobs").json()["results"]
    assert [row["blocked_by"][0].partition(" of ")[0] for row in rows] == ["budget: 4"] * 5
    assert "quota_plan" not in rows[0]


def test_strict_job_beyond_the_budget_is_422_and_changes_nothing(api: APIClient) -> None:
    answer = poll(api, query="?strict=true")
    assert (answer.status_code, answer["Content-Type"]) == (422, "application/problem+json")
    problem = json.loads(answer.content)
    assert problem == {
        "type": "urn:marketdata:beyond-budget",
        "title": "Beyond budget",
        "status": 422,
        "detail": "The job wants 2,880 requests a day of alpha_vantage's budget, 25 requests a day, and would"
        " get 20; the shortest interval that fits in full is 8640 s (2 h 24 min).",
        "shortest_interval": 8640,
    }
    assert not PollJob.objects.exists()


def test_strict_job_with_the_interval_named_is_accepted(api: APIClient) -> None:
    assert poll(api, {"interval": 8640}, query="?strict=true").status_code == 202


def test_strict_job_of_too_many_symbols_is_told_so(api: APIClient) -> None:
    symbols = [f"A{chr(65 + number)}" for number in range(26)]
    problem = json.loads(poll(api, {"symbols": symbols}, query="?strict=true").content)
    assert problem["shortest_interval"] is None
    assert "not even an interval of 86400 s (1 d) fits in full" in problem["detail"]


def test_strict_job_of_provider_without_key_is_422_and_names_the_variable(
    api: APIClient, settings: Settings
) -> None:
    settings.FINNHUB_API_KEY = ""
    answer = poll(api, {"provider": "finnhub"}, query="?strict=true")
    problem = json.loads(answer.content)
    assert (answer.status_code, problem["type"]) == (422, "urn:marketdata:not-configured")
    assert problem["variable"] == "FINNHUB_API_KEY"
    assert problem["detail"] == "finnhub is not configured: set FINNHUB_API_KEY."
    assert not PollJob.objects.exists()


@pytest.mark.parametrize("query", ["", "?strict=false"])
def test_setting_refuses_whatever_the_query_says(api: APIClient, settings: Settings, query: str) -> None:
    settings.QUOTA_STRICT = True
    assert poll(api, query=query).status_code == 422
    assert not PollJob.objects.exists()


@pytest.mark.parametrize("query", ["?strict=1", "?strict=", "?strict=TRUE", "?strict=true&strict=true"])
def test_wrong_strict_is_400_and_names_it(api: APIClient, query: str) -> None:
    answer = poll(api, query=query)
    assert answer.status_code == 400
    (error,) = json.loads(answer.content)["errors"]
    assert error["field"] == "strict"
    assert not PollJob.objects.exists()


def test_wrong_body_is_400_before_the_budget_is_asked(api: APIClient) -> None:
    assert poll(api, {"interval": 0}, query="?strict=true").status_code == 400
