"""DELETE /jobs/{job_id}."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone
from rest_framework.test import APIClient

from prices.jobs.services import delete_job, pause_job, stop_job
from prices.models import PollGap, PollJob, PollRun
from tests.conftest import MakeJob
from tests.prices.slots_of_a_job import add_gap, add_runs

pytestmark = pytest.mark.django_db


def delete(api: APIClient, job_id: object, query: str = "") -> Any:
    return api.delete(f"/jobs/{job_id}{query}")


@pytest.fixture
def deleted(make_job: MakeJob) -> PollJob:
    """Return a job with runs and gaps that was deleted."""
    job = make_job(["SIM-A"])
    add_runs(job, "ssf")
    add_gap(job, 3, 7)
    stop_job(job.id)
    delete_job(job.id)
    return job


@pytest.mark.parametrize("slash", ["", "/"])
def test_stopped_job_is_deleted(api: APIClient, make_job: MakeJob, slash: str) -> None:
    job = make_job()
    stop_job(job.id)
    answer = delete(api, job.id, slash)
    assert (answer.status_code, answer.content) == (204, b"")
    job.refresh_from_db()
    assert job.deleted_at is not None
    assert timezone.now() - job.deleted_at < timedelta(seconds=60)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("PATCH", "", {"interval": 5}),
        ("DELETE", "", None),
        ("POST", "/pause", {}),
        ("POST", "/resume", {}),
        ("GET", "/runs", None),
        ("GET", "/gaps", None),
    ],
)
def test_deleted_job_is_unknown_to_its_calls(
    api: APIClient, deleted: PollJob, method: str, path: str, body: Any
) -> None:
    call: Any = getattr(api, method.lower())
    answer = call(f"/jobs/{deleted.id}{path}", body, format="json")
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:marketdata:unknown-job")


def test_deleted_job_is_unknown_to_a_stop_and_in_no_list(
    api: APIClient, deleted: PollJob, make_job: MakeJob
) -> None:
    kept = make_job()
    stop_job(kept.id)
    assert api.post("/prices/stop", {"job_id": str(deleted.id)}, format="json").status_code == 404
    for query in ("", "?status=stopped", "?provider=simulated", "?symbol=SIM-A"):
        assert [job["job_id"] for job in api.get(f"/jobs{query}").json()["results"]] == [str(kept.id)]


def test_what_is_known_of_a_deleted_job_stays(deleted: PollJob) -> None:
    assert PollRun.objects.filter(job=deleted).count() == 3
    assert PollGap.objects.filter(job=deleted, reason="down: no scheduler ran").count() == 1
    deleted.refresh_from_db()
    assert deleted.periodic_task is not None


@pytest.mark.parametrize("status", ["active", "paused"])
def test_job_that_has_not_been_stopped_is_409(api: APIClient, make_job: MakeJob, status: str) -> None:
    job = make_job()
    if status == "paused":
        pause_job(job.id)
    answer = delete(api, job.id)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:marketdata:job-not-stopped")
    assert answer.json()["detail"] == f"The job is {status}: stop it first, by POST /prices/stop."
    assert api.get(f"/jobs/{job.id}").json()["status"] == status


def test_unknown_job_is_404(api: APIClient) -> None:
    assert delete(api, uuid4()).status_code == 404


def test_input_is_refused(api: APIClient, make_job: MakeJob) -> None:
    job = make_job()
    stop_job(job.id)
    assert delete(api, job.id, "?force=true").status_code == 400
    assert api.delete(f"/jobs/{job.id}", {"force": True}, format="json").status_code == 400
    assert api.get(f"/jobs/{job.id}").status_code == 200


def test_database_keeps_a_job_that_goes_on_from_being_deleted(make_job: MakeJob) -> None:
    make_job()
    with pytest.raises(IntegrityError, match="poll_jobs_deleted_are_stopped"), transaction.atomic():
        PollJob.objects.update(deleted_at=timezone.now())
