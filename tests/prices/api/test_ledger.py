"""GET /jobs/{job_id}/runs and /gaps, and what a job's detail tells of its last day."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from prices.models import PollJob
from tests.conftest import MakeJob
from tests.prices.slots_of_a_job import REASONS, START, add_gap, add_runs, slot

pytestmark = pytest.mark.django_db
WINDOW = {"since": "2026-11-22T14:30:00Z", "until": "2026-11-22T15:30:00Z"}


def text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def results(api: APIClient, job: PollJob, part: str, **query: Any) -> list[dict[str, Any]]:
    answer = api.get(f"/jobs/{job.id}/{part}", query)
    assert answer.status_code == 200, answer.content
    rows: list[dict[str, Any]] = answer.json()["results"]
    return rows


def pages(api: APIClient, address: str) -> list[list[dict[str, Any]]]:
    found = []
    following: str | None = address
    while following:
        page = api.get(following).json()
        found.append(page["results"])
        following = page["next"]
    return found


def test_runs_tell_what_became_of_each_slot(api: APIClient, make_job: MakeJob) -> None:
    job = make_job()
    add_runs(job, "sfc")
    claimed, failed, stored = results(api, job, "runs")
    run = job.runs.get(state="failed")
    assert failed == {
        "poll_id": str(run.id),
        "due_at": text(slot(1)),
        "state": "failed",
        "reason": REASONS["failed"],
        "points": 0,
        "started_at": text(slot(1) + timedelta(milliseconds=20)),
        "finished_at": text(slot(1) + timedelta(milliseconds=120)),
        "delay_s": 0.02,
    }
    assert (claimed["state"], claimed["finished_at"]) == ("claimed", None)
    assert (stored["state"], stored["reason"], stored["points"]) == ("stored", None, 1)


def test_runs_go_on_over_pages(api: APIClient, make_job: MakeJob) -> None:
    job = make_job()
    add_runs(job, "sfkshfk")
    found = pages(api, f"/jobs/{job.id}/runs?limit=2&state=stored,failed,skipped")
    assert [len(page) for page in found] == [2, 2, 2]
    assert [row["due_at"] for page in found for row in page] == [text(slot(n)) for n in (6, 5, 3, 2, 1, 0)]


def test_runs_are_chosen_by_time(api: APIClient, make_job: MakeJob) -> None:
    job = make_job()
    add_runs(job, "ssssss")
    found = results(api, job, "runs", since=text(slot(1)), until="2026-11-22T15:30:04.25+01:00")
    assert [row["due_at"] for row in found] == [text(slot(n)) for n in (3, 2, 1)]


def test_gaps_tell_what_was_not_polled_and_why(api: APIClient, make_job: MakeJob) -> None:
    job = make_job()
    add_runs(job, "sffsk....ks")
    add_gap(job, 5, 8)
    found = results(api, job, "gaps", **WINDOW)
    assert [(row["kind"], row["slots"]) for row in found] == [
        ("skipped", 1),
        ("gap", 4),
        ("skipped", 1),
        ("failed", 2),
    ]
    assert found[1] == {
        "from": text(slot(5)),
        "to": text(slot(8)),
        "slots": 4,
        "reason": "down: no scheduler ran",
        "kind": "gap",
    }


def test_gaps_go_on_over_pages(api: APIClient, make_job: MakeJob) -> None:
    now = timezone.now()
    start = now.replace(microsecond=0) - timedelta(hours=1)
    job = make_job()
    add_runs(job, "fskkssfffs....ks", start=start)
    add_gap(job, 10, 13, start=start)
    (whole,) = pages(api, f"/jobs/{job.id}/gaps")
    assert len(whole) == 5
    found = pages(api, f"/jobs/{job.id}/gaps?limit=2")
    assert [len(page) for page in found] == [2, 2, 1]
    assert [row for page in found for row in page] == whole


def test_pages_of_gaps_end_where_the_first_one_would(api: APIClient, make_job: MakeJob) -> None:
    start = timezone.now().replace(microsecond=0) - timedelta(hours=30)
    job = make_job(interval=3600)
    for hour in (4, 22, 27, 29):
        add_gap(job, hour, hour, interval=3600, start=start)
    assert [len(page) for page in pages(api, f"/jobs/{job.id}/gaps?limit=1")] == [1, 1, 1]


def test_gaps_are_those_of_the_last_day_where_nothing_is_said(api: APIClient, make_job: MakeJob) -> None:
    job = make_job(interval=3600)
    start = timezone.now().replace(minute=0, second=0, microsecond=0) - timedelta(hours=48)
    add_gap(job, 0, 46, interval=3600, start=start)
    (only,) = results(api, job, "gaps")
    assert only["slots"] == 22
    (earlier,) = results(api, job, "gaps", until=text(start + timedelta(hours=2)))
    assert earlier["slots"] == 2


@pytest.mark.parametrize("part", ["runs", "gaps"])
def test_ledger_of_unknown_job_is_404(api: APIClient, part: str) -> None:
    answer = api.get(f"/jobs/{uuid4()}/{part}")
    assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")
    assert answer.json()["type"] == "urn:marketdata:unknown-job"


@pytest.mark.parametrize("part", ["runs", "gaps", "runs/", "gaps/"])
def test_ledger_of_new_job_is_empty(api: APIClient, make_job: MakeJob, part: str) -> None:
    assert api.get(f"/jobs/{make_job().id}/{part}").json() == {"results": [], "next": None}


@pytest.mark.parametrize(
    ("part", "query", "field"),
    [
        ("runs", {"state": "failed,lost"}, "state"),
        ("runs", {"state": ""}, "state"),
        ("runs", {"state": ["failed", "skipped"]}, "state"),
        ("runs", {"before": "5"}, "before"),
        ("gaps", {"before": str(uuid4())}, "before"),
        ("gaps", {"state": "failed"}, "state"),
        ("gaps", {"limit": "0"}, "limit"),
        ("runs", {"limit": "1001"}, "limit"),
        ("runs", {"since": "2026-11-22T15:00:00Z", "until": "2026-11-22T15:00:00Z"}, "since"),
        ("gaps", {"since": "2026-11-22T16:00:00Z", "until": "2026-11-22T15:00:00Z"}, "since"),
        ("gaps", {"since": "2999-11-22T16:00:00Z"}, "since"),
        ("gaps", {"since": "2026-11-15T14:00:00Z", "until": "2026-11-22T14:00:01Z"}, "since"),
    ],
)
def test_ledger_with_wrong_query_names_the_field(
    api: APIClient, make_job: MakeJob, part: str, query: dict[str, Any], field: str
) -> None:
    answer = api.get(f"/jobs/{make_job().id}/{part}", query)
    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize("part", ["runs", "gaps"])
@pytest.mark.parametrize("name", ["since", "until"])
@pytest.mark.parametrize(
    "moment",
    [
        "",
        "yesterday",
        "2026-11-22",
        "2026-11-22T14:30",
        "2026-11-22T14:30:00",
        "2026-11-22 14:30:00Z",
        "2026-11-22T14:30:00 01:00",
        "2026-11-22T25:30:00Z",
        "2026-02-30T00:00:00Z",
        "2026-11-22T14:30:00.1234567Z",
        "1969-12-31T23:59:59Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "٢٠٢٦-11-22T14:30:00Z",
        "1795357800",
    ],
)
def test_ledger_with_wrong_time_says_how_one_is_written(
    api: APIClient, make_job: MakeJob, part: str, name: str, moment: str
) -> None:
    answer = api.get(f"/jobs/{make_job().id}/{part}", {name: moment})
    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert error["field"] == name
    assert "2026-11-22T14:30:00Z" in error["allowed"]


@pytest.mark.parametrize("until", ["1970-01-01T00:00:00.000001Z", "9999-12-31T23:59:59.999999Z"])
@pytest.mark.parametrize("part", ["runs", "gaps"])
def test_ledger_takes_the_remotest_times(api: APIClient, make_job: MakeJob, part: str, until: str) -> None:
    assert results(api, make_job(), part, until=until) == []


def test_longest_window_is_taken(api: APIClient, make_job: MakeJob) -> None:
    job = make_job()
    add_runs(job, "f")
    week = {"since": text(START - timedelta(days=7) + timedelta(seconds=1)), "until": text(slot(1))}
    assert len(results(api, job, "gaps", **week)) == 1


def test_detail_tells_how_the_last_day_went(
    api: APIClient, make_job: MakeJob, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    job = make_job()
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=10)
    add_runs(job, "ssshffk..a", start=start)
    add_gap(job, 7, 9, start=start)
    with django_assert_num_queries(3):
        body = api.get(f"/jobs/{job.id}").json()
    assert body["success_rate"] == 0.4
    expected = {"slots": 10, "stored": 3, "shared": 1, "failed": 2, "skipped": 1, "in_gaps": 3}
    assert body["last_24h"] == expected | {"market_closed": 0}
    assert "success_rate" not in api.get("/jobs").json()["results"][0]


def test_schema_shows_the_ledger(api: APIClient) -> None:
    accept = {"accept": "application/vnd.oai.openapi+json"}
    schema = json.loads(api.get("/api/schema", headers=accept).content)
    shapes = schema["components"]["schemas"]
    assert list(shapes["Gap"]["properties"]) == ["from", "to", "slots", "reason", "kind"]
    assert "budget" in shapes["JobDetail"]["properties"]["success_rate"]["description"]
    calls = schema["paths"]["/jobs/{job_id}/gaps"]["get"]
    assert {each["name"] for each in calls["parameters"]} == {"job_id", "limit", "since", "until"}
    assert set(calls["responses"]) == {"200", "400", "404", "503"}
