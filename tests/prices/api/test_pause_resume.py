"""POST /jobs/{job_id}/pause and /resume."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from django.db import connection
from django.http import HttpResponse
from django.utils import timezone
from rest_framework.test import APIClient

from prices.jobs.services import stop_job
from prices.ledger.runs import RunOutcome, claim_slots, finish
from prices.models import RunState
from tests.conftest import MakeJob
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db


@pytest.fixture(params=["pause", "resume"])
def call(request: pytest.FixtureRequest) -> str:
    """Return each of both calls."""
    return str(request.param)


def test_job_is_paused_and_resumed_and_answered(api: APIClient, make_job: MakeJob) -> None:
    job = make_job(interval=60)
    for path, status, enabled in [
        ("pause", "paused", False),
        ("pause/", "paused", False),
        ("resume", "active", True),
        ("resume/", "active", True),
    ]:
        answer = api.post(f"/jobs/{job.id}/{path}")
        assert (answer.status_code, answer.json()) == (200, api.get(f"/jobs/{job.id}").json())
        assert answer.json()["status"] == status
        job.refresh_from_db()
        assert (job.status, job.periodic_task.enabled) == (status, enabled)


@pytest.mark.django_db(transaction=True)
def test_pause_is_answered_once_no_fetch_can_start(api: APIClient, make_job: MakeJob) -> None:
    job = make_job()
    (claim,) = claim_slots([job.id], now=timezone.now())
    with ThreadPoolExecutor() as pool:
        answering = pool.submit(in_thread, lambda: api.post(f"/jobs/{job.id}/pause"))
        wait_until(lambda: api.get(f"/jobs/{job.id}").json()["status"] == "paused")
        assert not answering.done()
        finish([RunOutcome(claim, RunState.STORED)])
        assert answering.result().status_code == 200
    assert claim_slots([job.id], now=timezone.now()) == []


def in_thread(work: Callable[[], HttpResponse]) -> HttpResponse:
    try:
        return work()
    finally:
        connection.close()


def test_stopped_job_is_409(api: APIClient, make_job: MakeJob, call: str) -> None:
    job = make_job()
    stop_job(job.id)
    answer = api.post(f"/jobs/{job.id}/{call}")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:marketdata:job-stopped")


def test_unknown_job_is_404(api: APIClient, call: str) -> None:
    answer = api.post(f"/jobs/{uuid4()}/{call}")
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:marketdata:unknown-job")


@pytest.mark.parametrize(
    ("query", "body", "status"),
    [
        ("", "", 200),
        ("", "{}", 200),
        ("", '{"waits": true}', 400),
        ("", "[]", 400),
        ("", "null", 400),
        ("", "{", 400),
        ("?strict=true", "", 400),
    ],
)
def test_input_of_any_kind_is_refused(
    api: APIClient, make_job: MakeJob, call: str, query: str, body: str, status: int
) -> None:
    job = make_job()
    answer = api.generic("POST", f"/jobs/{job.id}/{call}{query}", body, content_type="application/json")
    assert answer.status_code == status
    expected = "paused" if call == "pause" and status == 200 else "active"
    assert api.get(f"/jobs/{job.id}").json()["status"] == expected


def test_body_of_another_type_is_415(api: APIClient, make_job: MakeJob, call: str) -> None:
    answer = api.generic("POST", f"/jobs/{make_job().id}/{call}", "{}", content_type="text/plain")
    assert answer.status_code == 415


def test_other_methods_are_405(api: APIClient, make_job: MakeJob, call: str) -> None:
    assert api.get(f"/jobs/{make_job().id}/{call}").status_code == 405
