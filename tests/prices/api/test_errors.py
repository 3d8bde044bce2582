"""Every way in which a provider can fail has an answer of the one error shape."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from django.db import connection
from pytest_django import Settings
from pytest_httpserver import HTTPServer
from rest_framework.test import APIClient

from dev.pytest_services import Services
from prices.api.errors import problem_response
from prices.api.problems import STATUS_OF_KIND
from prices.jobs.services import JobNotFoundError, JobStoppedError
from prices.latest.errors import (
    Failure,
    FetchError,
    LatestTimeoutError,
    NoPriceError,
    RequestRefusedError,
    TooManyFetchesError,
)
from prices.latest.single_flight import forget_single_flight
from providers.base import ErrorKind, NotConfiguredError, ProviderError, ProviderTimeoutError
from providers.rate_limits.permits import Refusal, Refused

LOCKED = "LOCK TABLE poll_jobs IN ACCESS EXCLUSIVE MODE"

KEY = "canary-key-123456"
ERRORS: list[tuple[Exception, int, str | None]] = [
    (JobNotFoundError(), 404, None),
    (JobStoppedError(), 409, None),
    (NotConfiguredError(provider="finnhub", variable="FINNHUB_API_KEY"), 503, None),
    (LatestTimeoutError("finnhub"), 504, "5"),
    (TooManyFetchesError("all places are taken"), 503, "1"),
    (
        RequestRefusedError(Refused(Refusal.BUDGET, "budget: used up (60 requests a minute)", 12.2, 60)),
        429,
        "13",
    ),
    (RequestRefusedError(Refused(Refusal.BROKEN, "broken: the provider did not work", 3.0)), 503, "3"),
    (RequestRefusedError(Refused(Refusal.UNAVAILABLE, "budget unavailable: Redis is away")), 503, "1"),
    (ProviderTimeoutError(kind=ErrorKind.UPSTREAM_ERROR, message="no answer within 10 s"), 504, "5"),
    (ProviderError(kind=ErrorKind.RATE_LIMITED, message="a limit", retry_after=29.6), 429, "30"),
    (ProviderError(kind=ErrorKind.RATE_LIMITED, message="a limit"), 429, "60"),
    (ProviderError(kind=ErrorKind.UNKNOWN_SYMBOL, message="none"), 404, None),
    (ProviderError(kind=ErrorKind.INVALID_KEY, message="refused"), 502, None),
]


@pytest.mark.parametrize(("error", "status", "retry_after"), ERRORS)
def test_error_has_its_status_and_the_one_shape(
    error: Exception, status: int, retry_after: str | None
) -> None:
    answer = problem_response(error, {})
    assert answer is not None
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    assert answer.headers.get("Retry-After") == retry_after
    assert answer.data is not None
    assert {"type", "title", "status", "detail"} <= set(answer.data)
    assert answer.data["detail"].endswith(".")
    assert answer.data["detail"][0].isupper() or isinstance(error, LatestTimeoutError | NotConfiguredError)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            RequestRefusedError(Refused(Refusal.BROKEN, "broken: it failed", 3.0)),
            "finnhub: broken: it failed.",
        ),
        (ProviderError(kind=ErrorKind.UNKNOWN_SYMBOL, message="not known"), "finnhub: not known."),
        (LatestTimeoutError("finnhub"), "finnhub: no answer in time."),
    ],
)
def test_error_of_a_named_provider_names_it(error: FetchError, told: str) -> None:
    alone, named = (
        problem_response(each, {})
        for each in (error, NoPriceError([Failure("finnhub", error)], is_named=True))
    )
    assert alone is not None
    assert named is not None
    assert alone.data is not None
    assert named.data == alone.data | {"detail": told}
    assert (named.status_code, named.headers) == (alone.status_code, alone.headers)


def test_every_kind_of_error_has_a_status() -> None:
    assert set(STATUS_OF_KIND) == set(ErrorKind)


def test_bug_has_no_answer_of_its_own() -> None:
    assert problem_response(ZeroDivisionError(), {}) is None


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        ('{"error":"Invalid API key."}', 401, 502),
        ('{"error":"You don\'t have access to this resource."}', 403, 502),
        ('{"error":"API limit reached."}', 429, 429),
        ('{"c":0,"d":null,"dp":null,"h":0,"l":0,"o":0,"pc":0,"t":0}', 200, 404),
        ('{"c":"x"}', 200, 502),
        ("<html>", 502, 502),
        (f"what is {KEY}?", 500, 502),
    ],
)
def test_latest_maps_what_the_provider_says_and_never_shows_the_key(
    api: APIClient, settings: Settings, httpserver: HTTPServer, body: str, status: int, expected: int
) -> None:
    settings.FINNHUB_API_KEY = KEY
    settings.FINNHUB_BASE_URL = httpserver.url_for("").rstrip("/")
    httpserver.expect_request("/api/v1/quote").respond_with_data(body, status=status)
    answer = api.get("/prices/latest", {"symbol": "AAPL", "provider": "finnhub"})
    forget_single_flight()
    assert answer.status_code == expected
    assert answer["Content-Type"] == "application/problem+json"
    assert json.loads(answer.content)["status"] == expected
    assert KEY not in answer.content.decode()


@pytest.mark.django_db(transaction=True)
def test_locked_table_is_busy_and_not_away(api: APIClient) -> None:
    other = psycopg.connect(**connection.get_connection_params() | {"cursor_factory": psycopg.Cursor})
    with other, connection.cursor() as cursor:
        other.execute(LOCKED)
        cursor.execute("SET lock_timeout = '50ms'")
        answer = api.post("/prices/poll", {"symbols": ["SIM-A"], "interval": 60}, format="json")
        cursor.execute("RESET lock_timeout")
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:marketdata:database-busy")
    assert answer.headers["Retry-After"] == "1"


@pytest.mark.django_db
def test_database_that_takes_no_writes_says_so(api: APIClient) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION READ ONLY")
    answer = api.post("/prices/poll", {"symbols": ["SIM-A"], "interval": 60}, format="json")
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:marketdata:database-read-only")


@pytest.mark.django_db(transaction=True)
def test_full_disk_is_named_and_nothing_is_lost(api: APIClient, small_disk: Path) -> None:
    job = {"symbols": ["SIM-A"], "interval": 60, "provider": "simulated"}
    assert api.post("/prices/poll", job, format="json").status_code == 202
    filling = small_disk / "filling"
    fill(filling)
    answers = [
        api.post("/prices/poll", job | {"interval": 60 + number}, format="json") for number in range(200)
    ]
    refused = [answer.json() for answer in answers if answer.status_code != 202]
    assert {problem["type"] for problem in refused} == {"urn:marketdata:disk-full"}
    assert "no room left" in refused[0]["detail"]
    assert api.get("/jobs").status_code == 200

    filling.unlink()
    assert api.post("/prices/poll", job, format="json").status_code == 202


@pytest.fixture
def small_disk(services: Services, tmp_path: Path) -> Iterator[Path]:
    """Yield the folder of a disk of 1 MB that holds the table of jobs."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip("only root can mount a small disk")
    owner = Path(f"/proc/{services.postgres.pid}").stat()
    folder = disk / "tablespace"
    folder.mkdir()
    os.chown(folder, owner.st_uid, owner.st_gid)
    for path in [tmp_path, *list(tmp_path.parents)[:2]]:
        path.chmod(0o755)
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLESPACE small_disk LOCATION '{folder}'")
        cursor.execute("ALTER TABLE poll_jobs SET TABLESPACE small_disk")
    yield disk
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE poll_jobs SET TABLESPACE pg_default")
        cursor.execute("DROP TABLESPACE small_disk")
    subprocess.run(["umount", disk], check=True)


def fill(path: Path) -> None:
    """Write until there is no room left."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 4096):
            pass
