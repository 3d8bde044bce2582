import json
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from pytest_django import DjangoAssertNumQueries, Settings
from pytest_httpserver import HTTPServer
from rest_framework.test import APIClient

from prices.database.uuid7 import new_ids
from prices.jobs.services import stop_job
from prices.models import SymbolAverage
from prices.polling.poll import claim_and_poll
from tests.conftest import MakeJob

pytestmark = pytest.mark.django_db
OBSERVED_AT = datetime(2026, 11, 22, 14, 30, tzinfo=UTC)


def add_averages(symbol: str, prices: list[int], averages: list[Decimal | None]) -> list[UUID]:
    ids = new_ids(len(prices))
    SymbolAverage.objects.bulk_create(
        SymbolAverage(
            event_id=event_id,
            symbol=symbol,
            price=price,
            average=average,
            window_size=min(number, 5),
            provider="simulated",
            observed_at=OBSERVED_AT,
        )
        for number, (event_id, price, average) in enumerate(zip(ids, prices, averages, strict=True), start=1)
    )
    return ids


def test_averages_are_newest_first_with_null_before_the_fifth(api: APIClient) -> None:
    ids = add_averages("SIM-A", [100, 101, 99, 102, 98], [None, None, None, None, Decimal(100)])
    answer = api.get("/averages?symbol=sim-a")
    body = answer.json()
    assert [row["event_id"] for row in body["results"]] == [str(event_id) for event_id in reversed(ids)]
    assert [row["average"] for row in body["results"]] == [100, None, None, None, None]
    assert b'"average":100,' in answer.content
    assert body["next"] is None
    assert set(body["results"][0]) == {
        "event_id",
        "symbol",
        "price",
        "currency",
        "average",
        "window_size",
        "provider",
        "observed_at",
        "created_at",
    }
    assert body["results"][0]["observed_at"] == "2026-11-22T14:30:00Z"


def test_averages_of_one_symbol_leave_out_others(api: APIClient) -> None:
    add_averages("SIM-A", [1], [None])
    add_averages("SIM-B", [2], [None])
    assert [row["symbol"] for row in api.get("/averages?symbol=SIM-B").json()["results"]] == ["SIM-B"]
    assert len(api.get("/averages").json()["results"]) == 2


def test_averages_go_on_over_pages(api: APIClient) -> None:
    ids = add_averages("SIM-A", [1, 2, 3, 4], [None] * 4)
    seen, address = [], "/averages?symbol=SIM-A&limit=3"
    while address:
        page = api.get(address).json()
        seen += [row["event_id"] for row in page["results"]]
        address = page["next"] and "{0.path}?{0.query}".format(urlsplit(page["next"]))
    assert seen == [str(event_id) for event_id in reversed(ids)]


@pytest.mark.parametrize("limit", ["0", "10001", "x", "1.5", "-1", "", "٣", "9" * 30])
def test_averages_with_wrong_limit_name_it(api: APIClient, limit: str) -> None:
    answer = api.get("/averages", {"limit": limit})
    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert error["field"] == "limit"
    assert error["allowed"] == "a whole number from 1 to 10000"


def test_averages_with_wrong_symbol_name_it(api: APIClient) -> None:
    assert api.get("/averages?symbol=%00").json()["errors"][0]["field"] == "symbol"


def test_averages_of_unknown_symbol_are_none(api: APIClient) -> None:
    assert api.get("/averages?symbol=NOPE").json() == {"results": [], "next": None}


def test_job_detail_tells_how_it_fares(api: APIClient, make_job: MakeJob) -> None:
    job = make_job(["SIM-A"], interval=60)
    body = api.get(f"/jobs/{job.id}").json()
    assert body == {
        "job_id": str(job.id),
        "status": "active",
        "symbols": ["SIM-A"],
        "interval": 60,
        "provider": "simulated",
        "market_hours": False,
        "created_at": job.created_at.isoformat().replace("+00:00", "Z"),
        "last_run_at": None,
        "last_success_at": None,
        "last_error": None,
        "failures": 0,
        "blocked_by": [],
        "success_rate": None,
        "last_24h": {
            "slots": 0,
            "stored": 0,
            "shared": 0,
            "failed": 0,
            "skipped": 0,
            "in_gaps": 0,
            "market_closed": 0,
        },
        "quota_plan": {
            "provider": "simulated",
            "budget": "none",
            "reserved_for_latest": 0,
            "in_use": 0,
            "wanted_per_day": 1440,
            "granted_per_day": 1440,
            "in_full": True,
            "interval": 60,
            "effective_interval": 60,
            "market_hours_only": False,
            "shortest_interval": 1,
        },
    }


def test_job_detail_of_stopped_job_says_so(api: APIClient, make_job: MakeJob) -> None:
    job = make_job()
    stop_job(job.id)
    body = api.get(f"/jobs/{job.id}/").json()
    assert (body["status"], body["blocked_by"]) == ("stopped", [])


@pytest.mark.parametrize("job_id", ["01a20694-6b2e-7c1d-9a55-0f3e8d1c7b42", "abc"])
def test_job_detail_of_unknown_job_is_404(api: APIClient, job_id: str) -> None:
    answer = api.get(f"/jobs/{job_id}")
    assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")


def test_jobs_are_newest_first_over_pages(api: APIClient, make_job: MakeJob) -> None:
    ids = [str(make_job().id) for _ in range(3)]
    first = api.get("/jobs?limit=2").json()
    second = api.get(first["next"]).json()
    assert [job["job_id"] for job in first["results"] + second["results"]] == list(reversed(ids))
    assert second["next"] is None


def test_jobs_are_chosen_and_pages_keep_the_choice(api: APIClient, make_job: MakeJob) -> None:
    jobs = [make_job(["SIM-A", "SIM-&B"]) for _ in range(3)]
    stop_job(jobs[1].id)
    make_job(["SIM-C"])
    make_job(["AAPL"], provider="finnhub")
    first = api.get("/jobs?status=active,paused&provider=Simulated&symbol=sim-%26b&limit=1").json()
    assert [job["job_id"] for job in first["results"]] == [str(jobs[2].id)]
    second = api.get(first["next"]).json()
    assert [job["job_id"] for job in second["results"]] == [str(jobs[0].id)]
    assert second["next"] is None


@pytest.mark.parametrize(
    ("query", "field", "problem", "allowed"),
    [
        (
            "status=active,ended",
            "status",
            "'ended' is not a status",
            "one or more of active, paused, stopped",
        ),
        ("status=", "status", "'' is not a status", "one or more of active, paused, stopped"),
        ("provider=bloomberg", "provider", "is not a provider", "which served it last"),
        ("symbol=%C3%84", "symbol", "is not a symbol", "1 to 32 letters"),
    ],
)
def test_jobs_with_wrong_choice_name_it(
    api: APIClient, query: str, field: str, problem: str, allowed: str
) -> None:
    answer = api.get(f"/jobs?{query}")
    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert (error["field"], error["problem"]) == (field, problem)
    assert allowed in error["allowed"]


def test_jobs_cost_no_query_a_row(
    api: APIClient, make_job: MakeJob, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for _ in range(5):
        make_job()
    # One more where the time was read over a second ago.
    with django_assert_max_num_queries(2):
        assert len(api.get("/jobs").json()["results"]) == 5


def test_schema_names_every_call_and_its_errors(api: APIClient) -> None:
    schema = json.loads(
        api.get("/api/schema", headers={"accept": "application/vnd.oai.openapi+json"}).content
    )
    assert set(schema["paths"]) == {
        "/prices/latest",
        "/prices/bars",
        "/prices/history",
        "/prices/poll",
        "/prices/stop",
        "/prices/{event_id}",
        "/raw/{raw_response_id}",
        "/averages",
        "/averages/latest",
        "/symbols",
        "/providers",
        "/jobs",
        "/jobs/{job_id}",
        "/jobs/{job_id}/pause",
        "/jobs/{job_id}/resume",
        "/jobs/{job_id}/runs",
        "/jobs/{job_id}/gaps",
    }
    assert schema["openapi"] == "3.1.0"
    calls = [call for path in schema["paths"].values() for call in path.values()]
    assert all(call["summary"] and len(call["summary"]) < 120 for call in calls)
    change = schema["paths"]["/jobs/{job_id}"]["patch"]
    assert set(change["responses"]) == {"200", "400", "404", "408", "409", "413", "415", "422", "503"}
    for call in ("pause", "resume"):
        pause = schema["paths"][f"/jobs/{{job_id}}/{call}"]["post"]
        assert set(pause["responses"]) == {"200", "400", "404", "408", "409", "413", "415", "503"}
    assert set(schema["paths"]["/prices/poll"]["post"]["responses"]) == {
        *("202", "400", "408", "409", "413", "415", "422", "503")
    }
    body = schema["components"]["schemas"]["PollRequest"]
    assert body["required"] == ["interval", "symbols"]
    assert body["properties"]["interval"]["type"] == "integer"
    assert body["properties"]["symbols"]["type"] == "array"


def test_docs_use_local_assets_only(api: APIClient) -> None:
    page = api.get("/docs").content.decode()
    assert "swagger-ui-bundle.js" in page
    assert "https://" not in page
    assert "//cdn" not in page


def test_providers_tell_key_breaker_and_budget(
    api: APIClient, settings: Settings, httpserver: HTTPServer, make_job: MakeJob
) -> None:
    settings.ALPHA_VANTAGE_API_KEY = ""
    settings.FINNHUB_API_KEY = "canary-key-123456"
    settings.FINNHUB_BASE_URL = httpserver.url_for("").rstrip("/")
    httpserver.expect_request("/api/v1/quote").respond_with_data("down", status=503)
    claim_and_poll([make_job(["AAPL"], provider="finnhub").id], now=datetime.now(UTC))
    found = {row["provider"]: row for row in api.get("/providers").json()["results"]}
    assert set(found) == {"alpha_vantage", "finnhub", "yfinance", "simulated"}
    assert found["alpha_vantage"]["missing_setting"] == "ALPHA_VANTAGE_API_KEY"
    finnhub = found["finnhub"]
    assert (finnhub["configured"], finnhub["breaker"], finnhub["failures"]) == (True, "closed", 3)
    assert finnhub["last_error"] == "upstream_error"
    assert [(window["limit"], window["left"]) for window in finnhub["budget"]] == [(30, 27), (60, 57)]


def test_providers_tell_of_no_success_where_nobody_watches(api: APIClient) -> None:
    found = {row["provider"]: row for row in api.get("/providers").json()["results"]}
    unwatched = {"last_success", "last_error", "last_error_at"}
    assert set(found["finnhub"]) - set(found["simulated"]) == unwatched


def test_providers_without_redis_are_503(api: APIClient, settings: Settings) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1"
    answer = api.get("/providers")
    assert (answer.status_code, answer["Content-Type"]) == (503, "application/problem+json")
