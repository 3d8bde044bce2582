"""The calls where API_AUTH is `keys`."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient
from rest_framework.views import APIView

from prices.access.keys import NewKey, create_key, revoke_key
from prices.api import urls as rest_urls
from prices.clock import database_now
from prices.ledger.runs import claim_slots
from prices.models import ApiKey, PollJob, PollRun, Scope
from tests.conftest import MakeJob
from tests.prices.api.test_price_evidence import add_point
from tests.prices.api.test_raw_answers import add_raw

pytestmark = pytest.mark.django_db
JOB = {"symbols": ["SIM-A"], "interval": 60, "provider": "simulated"}
ANY_ID = "01940000-0000-7000-8000-000000000000"
MakeClient = Callable[..., APIClient]


@pytest.fixture(autouse=True)
def _with_keys(settings: Settings) -> None:
    settings.API_AUTH = "keys"


@pytest.fixture
def caller() -> MakeClient:
    """Return a function that gives a client of the REST interface with a key of its own."""

    def make(name: str = "team", *scopes: Scope) -> APIClient:
        return with_key(create_key(name, scopes or [Scope.READ, Scope.JOBS], expires_at=None))

    return make


def with_key(made: NewKey) -> APIClient:
    return APIClient(headers={"Authorization": f"Bearer {made.text}"})


def create_job(api: APIClient, **more: Any) -> str:
    answer = api.post("/prices/poll", JOB, format="json", **more)
    assert answer.status_code == 202, answer.content
    return str(json.loads(answer.content)["job_id"])


def problem(answer: Any) -> tuple[int, str]:
    assert answer["Content-Type"] == "application/problem+json", answer.content
    return answer.status_code, json.loads(answer.content)["type"].removeprefix("urn:marketdata:")


def addresses() -> list[tuple[str, str]]:
    """Return each method and address of the REST interface."""
    found = []
    for pattern in rest_urls.urlpatterns:
        view: type[APIView] = pattern.callback.view_class  # type: ignore[attr-defined]
        ids = dict.fromkeys(pattern.pattern.regex.groupindex, ANY_ID)
        found += [
            (method, reverse(str(pattern.name), kwargs=ids))
            for method in view.http_method_names
            if hasattr(view, method)
        ]
    return found


@pytest.mark.parametrize(("method", "path"), [*addresses(), ("get", "/api/schema")])
def test_every_call_needs_a_key(api: APIClient, method: str, path: str) -> None:
    answer = api.generic(method.upper(), path)
    assert problem(answer) == (401, "key-required")
    assert answer["WWW-Authenticate"] == 'Bearer realm="marketdata"'
    assert problem(api.generic(method.upper(), path, headers={"X-API-Key": "mdk_1"})) == (401, "invalid-key")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/admin/login/"])
def test_health_and_login_need_none(api: APIClient, path: str) -> None:
    assert api.get(path).status_code == 200


@pytest.mark.parametrize("path", [path for _, path in addresses()])
def test_scope_that_a_call_needs_is_told(caller: MakeClient, path: str) -> None:
    """Whoever may read is let through to the prices alone, and whoever may have jobs to those alone."""
    is_of_jobs = path.startswith("/jobs") or path in ("/prices/poll", "/prices/stop")
    refused, other = (Scope.READ, Scope.JOBS) if is_of_jobs else (Scope.JOBS, Scope.READ)
    answer = caller("one", refused).get(path)
    assert problem(answer) == (403, "missing-scope")
    assert json.loads(answer.content)["scope"] == other
    for scope in (other, Scope.ADMIN):
        assert caller("one", scope).get(path).status_code not in (401, 403)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer {}"},
        {"Authorization": "bearer  {} "},
        {"X-API-Key": "{}"},
        {"Authorization": "Bearer {}", "X-API-Key": "{}"},
        {"Authorization": "Bearer {}", "X-API-Key": ""},
        # A proxy's.
        {"Authorization": "Basic dXNlcjpwYXNz", "X-API-Key": "{}"},
    ],
)
def test_key_is_sent_in_either_header(headers: dict[str, str], api: APIClient) -> None:
    text = create_key("team", [Scope.READ], expires_at=None).text
    sent = {name: value.format(text) for name, value in headers.items()}
    assert api.get("/providers", headers=sent).status_code == 200


def test_two_different_keys_are_refused(api: APIClient) -> None:
    one, two = (create_key("team", [Scope.READ], expires_at=None).text for _ in range(2))
    answer = api.get("/providers", headers={"Authorization": f"Bearer {one}", "X-API-Key": two})
    assert problem(answer) == (401, "invalid-key")
    assert one not in answer.content.decode()


@pytest.mark.parametrize("headers", [{"X-API-Key": ""}, {"Authorization": "Bearer "}])
def test_empty_key_is_none(api: APIClient, headers: dict[str, str]) -> None:
    """As of a variable of the shell that is not set."""
    assert problem(api.get("/providers", headers=headers)) == (401, "key-required")


def test_key_in_the_query_is_refused(api: APIClient) -> None:
    text = create_key("team", [Scope.READ], expires_at=None).text
    assert problem(api.get(f"/providers?api_key={text}")) == (401, "key-required")


def test_revoked_and_expired_keys_are_told_apart() -> None:
    revoked = create_key("team", [Scope.READ], expires_at=None)
    expired = create_key("team", [Scope.READ], expires_at=timezone.now() - timedelta(seconds=5))
    assert with_key(revoked).get("/providers").status_code == 200
    revoke_key(revoked.row.prefix)
    for made, word in ((revoked, "was revoked at"), (expired, "expired at")):
        answer = with_key(made).get("/providers")
        assert problem(answer) == (401, "invalid-key")
        assert json.loads(answer.content)["detail"].startswith(f"The API key {word} ")


def test_open_service_asks_for_no_key(api: APIClient, settings: Settings) -> None:
    settings.API_AUTH = "open"
    job_id = create_job(api)
    assert PollJob.objects.get(id=job_id).client is None
    answer = api.get("/jobs", headers={"Authorization": "Bearer whatever"})
    assert answer.status_code == 200
    assert not {"RateLimit", "RateLimit-Policy"} & set(answer.headers)


def test_jobs_of_other_clients_are_not_there(caller: MakeClient, make_job: MakeJob) -> None:
    mine, theirs = caller("mine"), caller("theirs")
    job_id, shared = create_job(mine), str(make_job().id)
    address = f"/jobs/{job_id}"
    calls: list[Callable[[APIClient], Any]] = [
        lambda api: api.get(address),
        lambda api: api.get(f"{address}/runs"),
        lambda api: api.get(f"{address}/gaps"),
        lambda api: api.patch(address, {"interval": 5}, format="json"),
        lambda api: api.post(f"{address}/pause"),
        lambda api: api.post(f"{address}/resume"),
        lambda api: api.post("/prices/stop", {"job_id": job_id}, format="json"),
        lambda api: api.delete(address),
    ]
    for call in calls:
        assert problem(call(theirs)) == (404, "unknown-job")
        assert call(mine).status_code in (200, 204)
        PollJob.objects.filter(id=job_id, deleted_at=None).exclude(status="stopped").update(interval=60)
    assert listed(theirs) == {shared}
    # One that was made before there were keys is everybody's.
    for api in (theirs, mine):
        assert api.post(f"/jobs/{shared}/pause").status_code == 200


def listed(api: APIClient) -> set[str]:
    return {job["job_id"] for job in api.get("/jobs").json()["results"]}


def test_jobs_are_of_the_client_whichever_of_its_keys_asks(caller: MakeClient) -> None:
    first = create_key("team", [Scope.JOBS], expires_at=None)
    job_id = create_job(with_key(first))
    second = caller("team")
    revoke_key(first.row.prefix)
    assert listed(second) == {job_id}
    other = caller("other")
    assert listed(other) == set()
    admin = caller("operator", Scope.ADMIN)
    assert listed(admin) == {job_id}
    assert admin.post("/prices/stop", {"job_id": job_id}, format="json").status_code == 200


def test_symbols_and_evidence_tell_of_the_callers_jobs_alone(caller: MakeClient) -> None:
    mine, theirs = caller("mine"), caller("theirs")
    job = PollJob.objects.get(id=create_job(mine))
    (run_id,) = (run.id for run in claim(job))
    point = add_point(raw=add_raw(payload='{"c": 1}', poll=run_id).id)
    for api, ids in ((mine, [str(job.id)]), (theirs, [])):
        by_symbol = {each["symbol"]: each for each in api.get("/symbols").json()["results"]}
        assert [each["job_id"] for each in by_symbol.get("SIM-A", {"jobs": []})["jobs"]] == ids
        evidence = api.get(f"/prices/{point.id}").json()
        assert ([evidence["job_id"]] if evidence["job_id"] else []) == ids
        assert (evidence["run"] is not None) == bool(ids)
        assert evidence["raw"]["poll_id"] == str(run_id)


def claim(job: PollJob) -> list[PollRun]:
    claim_slots([job.id], now=database_now())
    return list(PollRun.objects.filter(job=job))


def test_idempotency_keys_are_each_clients_own(caller: MakeClient) -> None:
    mine, theirs = caller("mine"), caller("theirs")
    header = {"headers": {"Idempotency-Key": "1"}}
    first = create_job(mine, **header)
    assert create_job(mine, **header) == first
    assert create_job(theirs, **header) != first


def test_answers_are_kept_by_no_shared_cache(caller: MakeClient) -> None:
    add_point()
    answer = caller().get("/prices/latest?symbol=AAPL&provider=finnhub")
    assert answer.status_code == 200
    assert answer["Cache-Control"].startswith("private, max-age=")
    assert answer["Vary"] == "Authorization, X-API-Key, Cookie"


def staff(*permissions: str) -> Client:
    user = User.objects.create_user("person", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    return client


def test_session_of_the_admin_counts_as_a_key(caller: MakeClient) -> None:
    job_id = create_job(caller("team"))
    client = staff("change_polljob")
    assert [job["job_id"] for job in client.get("/jobs").json()["results"]] == [job_id]
    body = {"job_id": job_id}
    answer = client.post("/prices/stop", body, content_type="application/json")
    assert problem(answer) == (403, "csrf-failed")
    client.get("/admin/password_change/")
    token = client.cookies["csrftoken"].value
    answer = client.post(
        "/prices/stop", body, content_type="application/json", headers={"X-CSRFToken": token}
    )
    assert answer.status_code == 200


def test_session_without_the_permission_reads(caller: MakeClient) -> None:
    client = staff("view_polljob")
    assert client.get("/providers").status_code == 200
    assert problem(client.get("/jobs")) == (403, "missing-scope")


@pytest.mark.parametrize("changes", [{"is_staff": False}, {"is_active": False}])
def test_session_of_nobody_in_the_admin_is_none(changes: dict[str, bool]) -> None:
    client = staff("change_polljob")
    User.objects.update(**changes)
    assert problem(client.get("/providers")) == (401, "key-required")


def test_docs_lead_to_the_login_and_back(api: APIClient) -> None:
    answer = api.get("/docs")
    assert (answer.status_code, answer["Location"]) == (302, "/admin/login/?next=/docs")
    assert staff().get("/docs").status_code == 200


def test_docs_of_one_who_asks_too_often_are_a_problem(api: APIClient, settings: Settings) -> None:
    settings.API_RATE_WITHOUT_KEY = "1/1h"
    assert [api.get("/docs").status_code, api.get("/docs").status_code] == [302, 429]
    assert problem(api.get("/docs")) == (429, "too-many-requests")
    assert problem(api.get("/api/schema")) == (429, "too-many-requests")


def test_schema_tells_how_a_key_is_sent(caller: MakeClient, settings: Settings) -> None:
    api = caller()
    schema = api.get("/api/schema").json()
    assert set(schema["components"]["securitySchemes"]) == {"apiKey", "bearer"}
    for operations in schema["paths"].values():
        for operation in operations.values():
            assert operation["security"] == [{"bearer": []}, {"apiKey": []}]
            assert {"401", "403", "429"} <= set(operation["responses"])
    settings.API_AUTH = "open"
    schema = api.get("/api/schema").json()
    assert "securitySchemes" not in schema["components"]
    assert "security" not in schema["paths"]["/jobs"]["get"]


def test_last_use_is_told_in_the_table(caller: MakeClient) -> None:
    caller().get("/providers")
    assert ApiKey.objects.get().last_used_at is not None
