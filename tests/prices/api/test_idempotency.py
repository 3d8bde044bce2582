"""POST /prices/poll with an Idempotency-Key."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import connection
from django.http import HttpResponse
from pytest_django import Settings
from rest_framework.test import APIClient

from prices.jobs import idempotency
from prices.models import IdempotencyKey, PollJob
from prices.tasks import delete_expired_idempotency_keys
from tests.conftest import MakeJob
from tests.product import database_url
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db
BODY = {"symbols": ["SIM-A", "SIM-B"], "interval": 60, "provider": "simulated"}
KEY = '"8e03978e-40d5-43dd-bc93-6894a57f9324"'
# It has created the job and is about to write its answer when it is killed.
HANGING = f"""
import sys
import time
import django
django.setup()
from prices.clock import database_now
from prices.jobs import idempotency
from prices.jobs.services import create_job

def make():
    create_job(symbols=["SIM-A"], interval=60, provider="simulated")
    print("created", flush=True)
    time.sleep(600)

idempotency.UNDER_WAY_AT_MOST = sys.argv[1]
idempotency.answer_once({KEY!r}, {{}}, make, now=database_now())
"""


def poll(api: APIClient, *, key: str | None = KEY, body: Any = None, query: str = "") -> HttpResponse:
    headers = {} if key is None else {"Idempotency-Key": key}
    text = json.dumps(BODY if body is None else body)
    answer: HttpResponse = api.generic(
        "POST", f"/prices/poll{query}", text, content_type="application/json", headers=headers
    )
    return answer


def told(answer: HttpResponse) -> tuple[int, bytes, str, str]:
    return answer.status_code, answer.content, answer["Quota-Plan"], answer["Location"]


def test_same_request_is_answered_as_before(api: APIClient) -> None:
    first = poll(api)
    job = PollJob.objects.get()
    # What it was answered, not what the job has become.
    api.patch(f"/jobs/{job.id}", {"symbols": ["SIM-C"], "interval": 5}, format="json")
    api.post("/prices/stop", {"job_id": str(job.id)}, format="json")
    api.delete(f"/jobs/{job.id}")
    assert told(poll(api)) == told(first)
    assert json.loads(first.content)["job_id"] == str(job.id)
    assert PollJob.objects.count() == 1


def test_request_without_a_key_or_with_another_creates_another_job(api: APIClient) -> None:
    answers = [poll(api, key=key) for key in (KEY, None, None, KEY[:-1], KEY.upper())]
    assert {answer.status_code for answer in answers} == {202}
    assert PollJob.objects.count() == 5


@pytest.mark.parametrize(
    "body", [BODY | {"symbols": ["sim-a", "SIM-B", "SIM-A"]}, dict(reversed(BODY.items()))]
)
def test_request_that_is_only_written_differently_is_the_same(api: APIClient, body: Any) -> None:
    assert told(poll(api)) == told(poll(api, body=body))


@pytest.mark.parametrize(
    ("change", "query"),
    [
        ({"symbols": ["SIM-B", "SIM-A"]}, ""),
        ({"interval": 61}, ""),
        ({"provider": None}, ""),
        ({}, "?strict=true"),
    ],
)
def test_other_request_with_the_key_is_422(api: APIClient, change: dict[str, Any], query: str) -> None:
    poll(api)
    answer = poll(api, body=BODY | change, query=query)
    assert (answer.status_code, answer["Content-Type"]) == (422, "application/problem+json")
    assert json.loads(answer.content)["type"] == "urn:marketdata:idempotency-key-reused"
    assert PollJob.objects.count() == 1


@pytest.mark.parametrize("key", ["", "é", "a\tb", "a" * 256, "\x7f"])
def test_key_that_is_none_is_400(api: APIClient, key: str) -> None:
    answer = poll(api, key=key)
    assert answer.status_code == 400
    (error,) = json.loads(answer.content)["errors"]
    assert (error["field"], error["allowed"]) == ("Idempotency-Key", "1 to 255 printable ASCII characters")
    assert not PollJob.objects.exists()


@pytest.mark.parametrize("key", ["a", "~" * 255, "a b"])
def test_key_at_the_bounds_is_taken(api: APIClient, key: str) -> None:
    assert told(poll(api, key=key)) == told(poll(api, key=key))


def test_refusal_is_not_kept(api: APIClient, settings: Settings) -> None:
    settings.FINNHUB_API_KEY = ""
    body = {"symbols": ["AAPL"], "interval": 3600, "provider": "finnhub"}
    assert poll(api, body=body, query="?strict=true").status_code == 422
    assert poll(api, body=body | {"interval": 0}).status_code == 400
    settings.FINNHUB_API_KEY = "canary-key-123456"
    assert poll(api, body=body, query="?strict=true").status_code == 202


def test_key_is_free_after_a_day(api: APIClient) -> None:
    first, other = poll(api), poll(api, key="other")
    IdempotencyKey.objects.update(created_at=PollJob.objects.latest("id").created_at - timedelta(hours=24))
    assert poll(api, body=BODY | {"interval": 5}).content != first.content
    delete_expired_idempotency_keys()
    assert list(IdempotencyKey.objects.values_list("key", flat=True)) == [KEY]
    assert poll(api, key="other").content != other.content
    assert PollJob.objects.count() == 4


@pytest.mark.django_db(transaction=True)
def test_requests_at_once_create_one_job() -> None:
    together = Barrier(20)

    def ask(_number: int) -> HttpResponse:
        try:
            together.wait()
            return poll(APIClient())
        finally:
            connection.close()

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(ask, range(20)))
    again = poll(APIClient())
    accepted = [answer for answer in answers if answer.status_code == 202]
    assert {told(answer) for answer in accepted} == {told(again)}
    for answer in answers:
        if answer not in accepted:
            assert (answer.status_code, answer["Retry-After"]) == (409, "1")
            assert json.loads(answer.content)["type"] == "urn:marketdata:idempotency-key-in-use"
    assert PollJob.objects.count() == 1


@pytest.fixture
def hanging(request: pytest.FixtureRequest, make_job: MakeJob) -> Iterator[subprocess.Popen[str]]:
    """Yield a process that is under way with the key: it has created a job, and not committed it."""
    # Who is the first with an interval makes others with it wait.
    make_job(interval=60)
    at_most = getattr(request, "param", idempotency.UNDER_WAY_AT_MOST)
    environment = os.environ | {
        "DATABASE_URL": database_url(),
        "DJANGO_SETTINGS_MODULE": "marketdata.settings",
    }
    command = [sys.executable, "-c", HANGING, at_most]
    with subprocess.Popen(
        command, cwd=django_settings.BASE_DIR, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "created\n":
                break
        yield process
        process.kill()


@pytest.mark.django_db(transaction=True)
def test_killed_process_leaves_nothing_that_blocks_the_key(
    api: APIClient, hanging: subprocess.Popen[str]
) -> None:
    answer = poll(api)
    assert (answer.status_code, answer["Retry-After"]) == (409, "1")
    assert poll(api, key="other").status_code == 202
    hanging.kill()
    hanging.wait()
    wait_until(lambda: poll(api).status_code == 202)
    poll(api)
    assert PollJob.objects.count() == 3


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("hanging", ["1s"], indirect=True)
def test_process_that_never_ends_blocks_the_key_for_a_while_only(
    api: APIClient, hanging: subprocess.Popen[str]
) -> None:
    wait_until(lambda: poll(api).status_code == 202)
    assert hanging.poll() is None
    assert PollJob.objects.count() == 2
