"""PATCH /jobs/{job_id}."""

from typing import Any
from uuid import uuid4

import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from prices.jobs.services import stop_job
from prices.models import PollJob
from tests.conftest import MakeJob

pytestmark = pytest.mark.django_db


def change(api: APIClient, job_id: object, body: Any) -> Any:
    return api.patch(f"/jobs/{job_id}", body, format="json")


def test_interval_is_changed_and_the_job_answered(api: APIClient, make_job: MakeJob) -> None:
    job = make_job(interval=60)
    answer = change(api, job.id, {"interval": 5})
    assert (answer.status_code, answer.json()) == (200, api.get(f"/jobs/{job.id}").json())
    assert answer.json()["interval"] == answer.json()["quota_plan"]["interval"] == 5
    job.refresh_from_db()
    assert (job.interval, job.periodic_task.interval.every) == (5, 5)


def test_symbols_are_changed_and_the_job_answered(api: APIClient, make_job: MakeJob) -> None:
    job = make_job(["SIM-A"], interval=60)
    answer = change(api, job.id, {"symbols": ["sim-c", "SIM-B", "SIM-C"]})
    assert (answer.status_code, answer.json()) == (200, api.get(f"/jobs/{job.id}").json())
    assert (answer.json()["symbols"], answer.json()["interval"]) == (["SIM-C", "SIM-B"], 60)
    answer = change(api, job.id, {"symbols": ["SIM-D"], "interval": 5})
    assert (answer.json()["symbols"], answer.json()["interval"]) == (["SIM-D"], 5)
    job.refresh_from_db()
    assert (job.periodic_task.interval.every, job.periodic_task.description) == (5, "SIM-D")


def test_job_that_names_no_provider_may_go_over_to_simulated_symbols(
    api: APIClient, make_job: MakeJob, settings: Settings
) -> None:
    settings.FINNHUB_API_KEY = "key"
    settings.PROVIDER_ORDER = ["finnhub"]
    job = make_job(["AAPL"], provider=None)
    PollJob.objects.filter(id=job.id).update(served_by="finnhub")
    assert change(api, job.id, {"symbols": ["SIM-A"]}).json()["quota_plan"]["provider"] == "simulated"
    job.refresh_from_db()
    assert job.periodic_task.queue == "poll.simulated"
    PollJob.objects.filter(id=job.id).update(served_by="simulated")
    assert change(api, job.id, {"symbols": ["AAPL"]}).json()["quota_plan"]["provider"] == "finnhub"


def test_symbols_that_the_named_provider_does_not_serve_are_told(api: APIClient, make_job: MakeJob) -> None:
    problem = change(api, make_job(["AAPL"], provider="finnhub").id, {"symbols": ["SIM-A"]}).json()
    assert problem["type"] == "urn:marketdata:invalid-symbols"
    assert problem["detail"] == "symbols: cannot be served by finnhub."


@pytest.mark.django_db(transaction=True)
def test_plan_answered_is_that_of_the_new_interval(
    api: APIClient, make_job: MakeJob, settings: Settings
) -> None:
    settings.ALPHA_VANTAGE_API_KEY = "canary-key-123456"
    job = make_job(["IBM"], interval=60, provider="alpha_vantage")
    assert not api.get(f"/jobs/{job.id}").json()["quota_plan"]["in_full"]
    plan = change(api, job.id, {"interval": 86_400}).json()["quota_plan"]
    assert (plan["in_full"], plan["wanted_per_day"], plan["in_use"]) == (True, 1, 0)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "interval symbols market_hours"),
        ({"market_hours": None}, "market_hours"),
        ({"market_hours": "true"}, "market_hours"),
        ({"market_hours": 1}, "market_hours"),
        ({"market_hours": []}, "market_hours"),
        ({"market_hours": True, "interval": 0}, "interval"),
        ({"interval": 0}, "interval"),
        ({"interval": 86_401}, "interval"),
        ({"interval": "60"}, "interval"),
        ({"interval": None}, "interval"),
        ({"interval": 5, "symbols": []}, "symbols"),
        ({"symbols": None}, "symbols"),
        ({"symbols": "SIM-B"}, "symbols"),
        ({"symbols": ["SIM-B", "A B"]}, "symbols"),
        ({"symbols": [f"SIM-{number}" for number in range(101)]}, "symbols"),
        ({"symbols": ["SIM-B", "AAPL"]}, "symbols"),
        ({"symbols": ["AAPL"], "interval": 5}, "symbols"),
        ({"interval": 5, "provider": "finnhub"}, "provider"),
    ],
)
def test_wrong_body_names_the_fields_and_changes_nothing(
    api: APIClient, make_job: MakeJob, body: Any, field: str
) -> None:
    job = make_job(interval=60)
    answer = change(api, job.id, body)
    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")
    assert [error["field"] for error in answer.json()["errors"]] == field.split()
    assert all(error["allowed"] for error in answer.json()["errors"])
    job.refresh_from_db()
    assert (job.interval, job.symbols) == (60, ["SIM-A"])


def test_unknown_parameter_is_refused(api: APIClient, make_job: MakeJob) -> None:
    job = make_job(interval=60)
    assert api.patch(f"/jobs/{job.id}?limit=1", {"interval": 5}, format="json").status_code == 400


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("query", "setting"), [("?strict=true", False), ("", True)])
def test_strict_change_beyond_the_budget_is_422_and_changes_nothing(
    api: APIClient, make_job: MakeJob, settings: Settings, query: str, setting: bool
) -> None:
    settings.ALPHA_VANTAGE_API_KEY = "key"
    settings.QUOTA_STRICT = setting
    job = make_job(["AAPL"], interval=8640, provider="alpha_vantage")
    answer = api.patch(f"/jobs/{job.id}{query}", {"interval": 60}, format="json")
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:marketdata:beyond-budget")
    assert answer.json()["shortest_interval"] == 4320
    job.refresh_from_db()
    assert (job.interval, job.periodic_task.interval.every) == (8640, 8640)
    # As many symbols more would be too much as well.
    answer = api.patch(f"/jobs/{job.id}{query}", {"symbols": ["AAPL", *"ABCD"]}, format="json")
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:marketdata:beyond-budget")
    job.refresh_from_db()
    assert job.symbols == ["AAPL"]
    # Rarer than before is always granted.
    for interval in (4320, 8640):
        answer = api.patch(f"/jobs/{job.id}{query}", {"interval": interval}, format="json")
        assert (answer.status_code, answer.json()["interval"]) == (200, interval)


def test_unknown_job_is_404(api: APIClient) -> None:
    answer = change(api, uuid4(), {"interval": 5})
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:marketdata:unknown-job")


def test_stopped_job_is_409(api: APIClient, make_job: MakeJob) -> None:
    job = make_job(interval=60)
    stop_job(job.id)
    answer = change(api, job.id, {"interval": 5})
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:marketdata:job-stopped")
