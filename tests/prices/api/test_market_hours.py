"""`market_hours` over REST: taken, told, changed."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from prices.api import responses as answers
from prices.ledger.gaps import GapReason
from prices.models import IdempotencyKey, PollJob
from tests.conftest import MakeJob
from tests.prices.slots_of_a_job import START, add_gap, add_runs, slot

pytestmark = pytest.mark.django_db
BODY = {"symbols": ["AAPL", "7203.T"], "interval": 60, "provider": "yfinance"}


def created(api: APIClient, **fields: Any) -> Any:
    answer = api.post("/prices/poll", BODY | fields, format="json")
    assert answer.status_code == 202
    return answer.json()


@pytest.mark.parametrize("fields", [{}, {"market_hours": False}])
def test_answer_without_market_hours_is_as_ever(api: APIClient, fields: Any) -> None:
    answer = api.post("/prices/poll", BODY | fields, format="json")
    job = PollJob.objects.get()
    assert answer.content.decode() == (
        f'{{"job_id":"{job.id}","status":"accepted","config":{{"symbols":["AAPL","7203.T"],"interval":60}}}}'
    )
    assert not job.market_hours
    assert api.get(f"/jobs/{job.id}").json()["market_hours"] is False


def test_market_hours_are_told_in_each_answer(api: APIClient) -> None:
    accepted = created(api, market_hours=True)
    assert accepted["config"] == {"symbols": ["AAPL", "7203.T"], "interval": 60, "market_hours": True}
    assert PollJob.objects.get().market_hours
    assert api.get("/jobs").json()["results"][0]["market_hours"] is True
    detail = api.get(f"/jobs/{accepted['job_id']}").json()
    assert detail["market_hours"] is True
    assert detail["quota_plan"]["market_hours_only"] is True


@pytest.mark.parametrize("value", ["true", "false", 1, 0, None, [], {}, [True]])
def test_what_is_no_boolean_is_refused(api: APIClient, value: Any) -> None:
    answer = api.post("/prices/poll", BODY | {"market_hours": value}, format="json")
    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert (error["field"], error["allowed"]) == ("market_hours", "true or false")
    assert not PollJob.objects.exists()


@pytest.mark.parametrize("query", ["true", "false"])
def test_query_takes_words_and_json_none(api: APIClient, query: str, settings: Settings) -> None:
    assert api.post(f"/prices/poll?strict={query}", BODY, format="json").status_code == 202
    assert api.post("/prices/poll?market_hours=true", BODY, format="json").status_code == 400


def test_key_of_a_request_from_before_is_still_the_same_request(api: APIClient) -> None:
    headers = {"Idempotency-Key": "order-1"}
    assert api.post("/prices/poll", BODY, format="json", headers=headers).status_code == 202
    # As requests were written down before there was such a field.
    former = json.dumps(BODY | {"strict": False}, sort_keys=True)
    assert IdempotencyKey.objects.get().fingerprint == hashlib.sha256(former.encode()).hexdigest()


def test_same_key_with_and_without_market_hours_are_two_requests(api: APIClient) -> None:
    headers = {"Idempotency-Key": "order-1"}
    assert api.post("/prices/poll", BODY, format="json", headers=headers).status_code == 202
    again = api.post("/prices/poll", BODY | {"market_hours": True}, format="json", headers=headers)
    assert again.status_code == 422


def test_market_hours_are_changed_alone_and_with_others(api: APIClient, make_job: MakeJob) -> None:
    job = make_job(["AAPL"], interval=60, provider="yfinance")

    def change(body: Any) -> Any:
        answer = api.patch(f"/jobs/{job.id}", body, format="json")
        assert (answer.status_code, answer.json()) == (200, api.get(f"/jobs/{job.id}").json())
        return answer.json()

    assert change({"market_hours": True})["market_hours"] is True
    assert change({"interval": 30})["market_hours"] is True
    told = change({"market_hours": False, "symbols": ["MSFT"]})
    assert (told["market_hours"], told["symbols"], told["interval"]) == (False, ["MSFT"], 30)


@pytest.mark.django_db(transaction=True)
def test_all_hours_in_place_of_market_hours_are_more(
    api: APIClient, make_job: MakeJob, settings: Settings
) -> None:
    settings.ALPHA_VANTAGE_API_KEY = "key"
    job = make_job(["AAPL"], interval=1800, provider="alpha_vantage", market_hours=True)
    answer = api.patch(f"/jobs/{job.id}?strict=true", {"market_hours": False}, format="json")
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:marketdata:beyond-budget")
    job.refresh_from_db()
    assert job.market_hours
    assert api.patch(f"/jobs/{job.id}?strict=true", {"interval": 3600}, format="json").status_code == 200


def test_closed_market_is_told_where_it_keeps_the_job_from_polling(make_job: MakeJob) -> None:
    job = make_job(["AAPL"], interval=60, provider="yfinance", market_hours=True)
    saturday, monday = datetime(2026, 11, 28, 12, tzinfo=UTC), datetime(2026, 11, 30, 15, tzinfo=UTC)
    # It has no price yet.
    assert answers.job(job, None, now=saturday)["blocked_by"] == []
    job.market_hours_from = saturday - timedelta(days=1)
    (blocker,) = answers.job(job, None, now=saturday)["blocked_by"]
    assert blocker.startswith("market_closed: polled again at 2026-11-30 14:30:")
    assert blocker.endswith(" UTC")
    assert answers.job(job, None, now=monday)["blocked_by"] == []
    job.status = "paused"
    assert answers.job(job, None, now=saturday)["blocked_by"] == []


def test_closed_slots_are_a_kind_of_their_own(api: APIClient, make_job: MakeJob) -> None:
    job = make_job()
    add_runs(job, "sf")
    add_gap(job, 2, 5, GapReason.MARKET_CLOSED)
    add_gap(job, 6, 7)
    window = {"since": START.isoformat(), "until": slot(9).isoformat()}
    found = api.get(f"/jobs/{job.id}/gaps", window).json()["results"]
    assert [(each["kind"], each["slots"]) for each in found] == [
        ("gap", 2),
        ("market_closed", 4),
        ("failed", 1),
    ]
    assert found[1]["reason"] == "market_closed: outside the hours of the job's markets"


def test_schema_shows_market_hours(api: APIClient) -> None:
    accept = {"accept": "application/vnd.oai.openapi+json"}
    shapes = json.loads(api.get("/api/schema", headers=accept).content)["components"]["schemas"]
    asked, changed = (shapes[name]["properties"]["market_hours"] for name in ("PollRequest", "ChangeRequest"))
    assert (asked["type"], asked["default"]) == ("boolean", False)
    assert "default" not in changed
    assert "market_hours" not in shapes["Config"]["required"]
    assert "market_hours" in shapes["Job"]["required"]
    assert "market_closed" in json.dumps(shapes["Gap"]["properties"]["kind"])
