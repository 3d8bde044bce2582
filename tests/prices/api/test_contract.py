"""The public contract, line by line: what is answered, and what wrong input gets."""

import json
import re
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.http import HttpResponse
from pytest_django import Settings
from rest_framework.test import APIClient

from prices.database.uuid7 import new_ids
from prices.models import PollJob, PricePoint
from tests.conftest import MakeJob

GOOD = {"symbols": ["AAPL", "MSFT"], "interval": 60, "provider": "alpha_vantage"}
pytestmark = pytest.mark.django_db

# Written down: the names of tests are the same in each process.
UNKNOWN_JOB = "01a20694-6b2e-7c1d-9a55-0f3e8d1c7b42"


def send(
    api: APIClient, method: str, path: str, body: bytes, content_type: str = "application/json"
) -> HttpResponse:
    # The stubs know bodies as text only.
    client: Any = api
    answer: HttpResponse = client.generic(method, path, body, content_type=content_type)
    return answer


def post(api: APIClient, path: str, body: Any) -> HttpResponse:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return send(api, "POST", path, raw)


def add_point(price: str, *, observed_at: datetime | None, provider: str = "alpha_vantage") -> PricePoint:
    point_id, raw_id = new_ids(2)
    return PricePoint.objects.create(
        id=point_id,
        symbol="AAPL",
        provider=provider,
        price=Decimal(price),
        observed_at=observed_at,
        precision="second" if observed_at else "unknown",
        received_at=datetime.now(UTC),
        raw=raw_id,
    )


def assert_problem(answer: HttpResponse, status: int, *, field: str | None = None) -> dict[str, Any]:
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = json.loads(answer.content)
    assert problem["status"] == status
    assert problem["type"].startswith("urn:marketdata:")
    assert problem["title"]
    assert problem["detail"]
    if field is not None:
        assert [error["field"] for error in problem["errors"]] == [field]
        assert problem["errors"][0]["problem"]
        assert problem["errors"][0]["allowed"]
    return problem


@pytest.fixture(autouse=True)
def no_network(settings: Settings) -> None:
    """Ask nobody: the only provider has no key, and what it answered before is stored."""
    settings.PROVIDER_ORDER = ["alpha_vantage"]


# --- GET /prices/latest ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/prices/latest", "/prices/latest/"])
def test_latest_answers_exactly_the_contracts_keys(api: APIClient, path: str) -> None:
    add_point("150.25", observed_at=datetime(2026, 11, 22, 14, 30, tzinfo=UTC))
    answer = api.get(path, {"symbol": "aapl", "provider": "Alpha_Vantage"})
    assert answer.status_code == 200
    assert answer["Content-Type"] == "application/json"
    assert answer.content == (
        b'{"symbol":"AAPL","price":150.25,"timestamp":"2026-11-22T14:30:00Z","provider":"alpha_vantage"}'
    )


@pytest.mark.parametrize(
    "price", ["150.25", "100", "0.0000001", "0.0000000123456789", "999999999999.0000000000000001", "218.3"]
)
def test_latest_price_has_the_providers_digits(api: APIClient, price: str) -> None:
    add_point(price, observed_at=datetime.now(UTC))
    assert f'"price":{price},'.encode() in api.get("/prices/latest", {"symbol": "AAPL"}).content


def test_latest_without_provider_time_gives_ours(api: APIClient) -> None:
    point = add_point("1", observed_at=None)
    answer = api.get("/prices/latest", {"symbol": "AAPL"}).json()
    assert datetime.fromisoformat(answer["timestamp"]) == point.received_at


@pytest.mark.django_db(transaction=True)
def test_latest_simulated_needs_no_key(api: APIClient, topic: str) -> None:
    answer = api.get("/prices/latest", {"symbol": "SIM-A", "provider": "simulated"}).json()
    assert (answer["symbol"], answer["provider"]) == ("SIM-A", "simulated")
    observed_at = datetime.fromisoformat(answer["timestamp"])
    assert datetime.now(UTC) - observed_at < timedelta(seconds=5)


@pytest.mark.parametrize("variable", ["ALPHA_VANTAGE_API_KEY", "FINNHUB_API_KEY"])
def test_latest_of_provider_without_key_names_the_variable(
    api: APIClient, settings: Settings, variable: str
) -> None:
    setattr(settings, variable, "")
    provider = variable.removesuffix("_API_KEY").lower()
    problem = assert_problem(api.get("/prices/latest", {"symbol": "AAPL", "provider": provider}), 503)
    assert variable in problem["detail"]
    assert problem["variable"] == variable


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({}, "symbol"),
        ({"symbol": ""}, "symbol"),
        ({"symbol": "A B"}, "symbol"),
        ({"symbol": "A" * 33}, "symbol"),
        ({"symbol": "Ä"}, "symbol"),
        ({"symbol": "A\0"}, "symbol"),
        ({"symbol": ["AAPL", "MSFT"]}, "symbol"),
        ({"symbol": "AAPL", "provider": "bloomberg"}, "provider"),
        ({"symbol": "AAPL", "provider": ""}, "provider"),
        ({"symbol": "SIM-A", "provider": "finnhub"}, "symbol"),
        ({"symbol": "AAPL", "provider": "simulated"}, "symbol"),
        ({"symbol": "AAPL", "symbols": "MSFT"}, "symbols"),
        ({"symbol": "AAPL", "maxage": "5"}, "maxage"),
    ],
)
def test_latest_with_wrong_query_names_the_field(api: APIClient, query: Any, field: str) -> None:
    assert_problem(api.get("/prices/latest", query), 400, field=field)


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/prices/latest?symbol=SIM-A&", "symbol, provider, expand, max_age, fetch"),
        (
            "/averages?",
            "symbol, symbols, provider, since, until, order, limit, cursor, numbers, format, expand",
        ),
        ("/jobs?", "limit, before, status, provider, symbol"),
        (f"/jobs/{UNKNOWN_JOB}?", "none"),
        (f"/jobs/{UNKNOWN_JOB}/runs?", "limit, before, state, since, until"),
        (f"/jobs/{UNKNOWN_JOB}/gaps?", "limit, since, until"),
        ("/providers?", "none"),
    ],
)
def test_unknown_parameter_is_refused_with_those_known(api: APIClient, path: str, known: str) -> None:
    problem = assert_problem(api.get(f"{path}page=2"), 400, field="page")
    assert problem["detail"] == "page: is not a parameter of this call."
    assert problem["errors"][0]["allowed"] == known


@pytest.mark.parametrize("path", ["/prices/poll", "/prices/stop"])
def test_unknown_parameter_of_a_post_changes_nothing(api: APIClient, make_job: MakeJob, path: str) -> None:
    job = make_job()
    body = GOOD if path.endswith("poll") else {"job_id": str(job.id)}
    assert_problem(post(api, f"{path}?Strict=true", body), 400, field="Strict")
    assert [(row.id, row.status) for row in PollJob.objects.all()] == [(job.id, "active")]


# --- POST /prices/poll ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/prices/poll", "/prices/poll/"])
def test_poll_answers_exactly_the_contracts_keys(api: APIClient, path: str) -> None:
    answer = post(api, path, GOOD)
    assert answer.status_code == 202
    body = json.loads(answer.content)
    job = PollJob.objects.get()
    assert body == {
        "job_id": str(job.id),
        "status": "accepted",
        "config": {"symbols": ["AAPL", "MSFT"], "interval": 60},
    }
    assert list(body) == ["job_id", "status", "config"]
    assert (job.symbols, job.interval, job.provider) == (["AAPL", "MSFT"], 60, "alpha_vantage")


@pytest.mark.parametrize("path", ["/prices/poll", "/prices/poll/"])
def test_poll_leads_to_its_job(api: APIClient, path: str) -> None:
    answer = post(api, path, GOOD)
    job = PollJob.objects.get()
    assert answer["Location"] == f"/jobs/{job.id}"
    assert (
        answer.content
        == (
            f'{{"job_id":"{job.id}","status":"accepted","config":{{"symbols":["AAPL","MSFT"],"interval":60}}}}'
        ).encode()
    )
    assert api.get(answer["Location"]).json()["job_id"] == str(job.id)


@pytest.mark.parametrize("provider", [None, ...])
def test_poll_without_provider_is_accepted(api: APIClient, provider: Any) -> None:
    body = {name: value for name, value in (GOOD | {"provider": provider}).items() if value is not ...}
    assert post(api, "/prices/poll", body).status_code == 202
    assert PollJob.objects.get().provider is None


@pytest.mark.parametrize(
    ("written", "provider"),
    [
        ("finhub", "finnhub"),
        ("FINNHUB", "finnhub"),
        ("Yfinance", "yfinance"),
        ("ALPHA_VANTAGE", "alpha_vantage"),
    ],
)
def test_poll_takes_provider_names_in_any_case_and_the_alias(
    api: APIClient, written: str, provider: str
) -> None:
    assert post(api, "/prices/poll", GOOD | {"provider": written}).status_code == 202
    assert PollJob.objects.get().provider == provider


def test_poll_of_repeated_symbols_shows_the_result(api: APIClient) -> None:
    answer = post(api, "/prices/poll", GOOD | {"symbols": ["msft", "AAPL", "MSFT", "aapl"]})
    assert json.loads(answer.content)["config"]["symbols"] == ["MSFT", "AAPL"]


@pytest.mark.parametrize("interval", [1, 86_400])
def test_poll_at_the_bounds_of_interval_is_accepted(api: APIClient, interval: int) -> None:
    assert post(api, "/prices/poll", GOOD | {"interval": interval}).status_code == 202


def test_poll_of_a_hundred_symbols_is_accepted(api: APIClient) -> None:
    symbols = [f"S{number}" for number in range(100)]
    assert post(api, "/prices/poll", GOOD | {"symbols": symbols * 2}).status_code == 202


def test_poll_of_provider_without_key_is_accepted(api: APIClient, settings: Settings) -> None:
    settings.FINNHUB_API_KEY = ""
    answer = post(api, "/prices/poll", GOOD | {"provider": "finnhub"})
    assert answer.status_code == 202
    detail = api.get(f"/jobs/{json.loads(answer.content)['job_id']}").json()
    assert detail["blocked_by"] == ["not configured: set FINNHUB_API_KEY"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"symbols": ...}, "symbols"),
        ({"symbols": []}, "symbols"),
        ({"symbols": None}, "symbols"),
        ({"symbols": "AAPL"}, "symbols"),
        ({"symbols": {"AAPL": 1}}, "symbols"),
        ({"symbols": [""]}, "symbols"),
        ({"symbols": ["AAPL", 5]}, "symbols"),
        ({"symbols": ["AAPL", None]}, "symbols"),
        ({"symbols": [["AAPL"]]}, "symbols"),
        ({"symbols": ["A\0"]}, "symbols"),
        ({"symbols": ["Ä"]}, "symbols"),
        ({"symbols": ["A" * 33]}, "symbols"),
        ({"symbols": ["A A"]}, "symbols"),
        ({"symbols": [f"S{number}" for number in range(101)]}, "symbols"),
        ({"symbols": ["SIM-A", "AAPL"], "provider": None}, "symbols"),
        ({"symbols": ["SIM-A"], "provider": "finnhub"}, "symbols"),
        ({"symbols": ["AAPL"], "provider": "simulated"}, "symbols"),
        ({"interval": ...}, "interval"),
        ({"interval": None}, "interval"),
        ({"interval": True}, "interval"),
        ({"interval": 1.5}, "interval"),
        ({"interval": 60.0}, "interval"),
        ({"interval": "60"}, "interval"),
        ({"interval": 10**30}, "interval"),
        ({"interval": 0}, "interval"),
        ({"interval": -1}, "interval"),
        ({"interval": 86_401}, "interval"),
        ({"interval": [60]}, "interval"),
        ({"provider": "bloomberg"}, "provider"),
        ({"provider": ""}, "provider"),
        ({"provider": 5}, "provider"),
        ({"provider": ["finnhub"]}, "provider"),
        ({"provder": "finnhub"}, "provder"),
    ],
)
def test_poll_with_wrong_field_names_it_and_changes_nothing(
    api: APIClient, change: dict[str, Any], field: str
) -> None:
    body = {name: value for name, value in (GOOD | change).items() if value is not ...}
    assert_problem(post(api, "/prices/poll", body), 400, field=field)
    assert not PollJob.objects.exists()


def test_poll_with_two_wrong_fields_names_both(api: APIClient) -> None:
    problem = assert_problem(post(api, "/prices/poll", {"symbols": [], "interval": 0}), 400)
    assert [error["field"] for error in problem["errors"]] == ["symbols", "interval"]


# --- POST /prices/stop ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/prices/stop", "/prices/stop/"])
def test_stop_answers_exactly_the_contracts_keys(api: APIClient, make_job: MakeJob, path: str) -> None:
    job = make_job()
    answer = post(api, path, {"job_id": str(job.id)})
    assert answer.status_code == 200
    assert answer.content == f'{{"status":"stopped","job_id":"{job.id}"}}'.encode()
    job.refresh_from_db()
    assert job.status == "stopped"


def test_stop_twice_answers_the_same(api: APIClient, make_job: MakeJob) -> None:
    body = {"job_id": str(make_job().id)}
    assert post(api, "/prices/stop", body).content == post(api, "/prices/stop", body).content


def test_stop_of_unknown_job_is_404(api: APIClient) -> None:
    assert_problem(post(api, "/prices/stop", {"job_id": str(uuid.uuid4())}), 404)


@pytest.mark.parametrize(
    "job_id",
    [
        f"{{{UNKNOWN_JOB}}}",
        f"urn:uuid:{UNKNOWN_JOB}",
        "0x" + "1" * 30,
        ...,
        None,
        "",
        "abc",
        5,
        ["a"],
        UNKNOWN_JOB[:-1],
        {"a": 1},
    ],
)
def test_stop_with_wrong_job_id_names_it(api: APIClient, job_id: Any) -> None:
    body = {} if job_id is ... else {"job_id": job_id}
    assert_problem(post(api, "/prices/stop", body), 400, field="job_id")


# --- Both posts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/prices/poll", "/prices/stop"])
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"5", b'"x"', b"\xff", b"[" * 100_000, b'{"symbols": NaN}', b"symbols=AAPL"],
)
def test_post_of_body_that_is_no_json_object_is_400(api: APIClient, path: str, body: bytes) -> None:
    assert_problem(post(api, path, body), 400)


@pytest.mark.parametrize("path", ["/prices/poll", "/prices/stop"])
@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml"]
)
def test_post_of_wrong_content_type_is_415(api: APIClient, path: str, content_type: str) -> None:
    answer = send(api, "POST", path, json.dumps(GOOD).encode(), content_type)
    assert_problem(answer, 415)
    assert not PollJob.objects.exists()


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_post_of_json_by_another_spelling_is_taken(api: APIClient, content_type: str) -> None:
    answer = send(api, "POST", "/prices/poll", json.dumps(GOOD).encode(), content_type)
    assert answer.status_code == 202


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/prices/latest"),
        ("GET", "/prices/poll"),
        ("PUT", "/prices/poll"),
        ("GET", "/prices/stop"),
        ("DELETE", "/prices/stop"),
        ("POST", "/averages"),
        ("POST", "/jobs"),
    ],
)
def test_wrong_method_is_405(api: APIClient, method: str, path: str) -> None:
    answer = send(api, method, path, b"{}")
    assert_problem(answer, 405)
    assert answer["Allow"]


def test_unknown_address_is_404(api: APIClient) -> None:
    assert_problem(api.get("/prices/nothing"), 404)


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "*/*"])
def test_answer_is_json_whatever_is_accepted(api: APIClient, accept: str) -> None:
    answer = api.get("/jobs", headers={"accept": accept})
    assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")


def test_detail_of_a_problem_is_one_sentence(api: APIClient) -> None:
    problem = assert_problem(post(api, "/prices/poll", GOOD | {"interval": 0}), 400)
    assert problem["detail"] == "interval: is out of range."
    assert problem["errors"][0]["allowed"] == "a whole number from 1 to 86400 (seconds)"
    assert re.fullmatch(r"urn:marketdata:invalid-interval", problem["type"])


# --- Quality --------------------------------------------------------------------------------------


def test_latest_with_quality_tells_its_age_and_freshness(api: APIClient) -> None:
    point = add_point("150.25", observed_at=datetime.now(UTC) - timedelta(days=30))
    body = api.get("/prices/latest?symbol=AAPL&expand=quality").json()
    assert list(body)[:4] == ["symbol", "price", "timestamp", "provider"]
    assert (body["freshness"], body["precision"], body["currency"]) == ("stale", "second", None)
    assert body["age_seconds"] == pytest.approx(30 * 86_400, abs=10)
    assert body["market_state"] in {"open", "closed"}
    assert body["freshness_rule"]
    assert body["raw_response_id"] == str(point.raw)
    assert datetime.fromisoformat(body["observed_at"]) == point.observed_at


def test_latest_with_quality_of_a_price_without_time_is_unknown(api: APIClient) -> None:
    add_point("1", observed_at=None)
    body = api.get("/prices/latest?symbol=AAPL&expand=quality").json()
    assert (body["freshness"], body["observed_at"], body["age_seconds"]) == ("unknown", None, None)


def test_latest_older_than_max_age_is_refused_with_its_age(api: APIClient) -> None:
    add_point("1", observed_at=datetime.now(UTC) - timedelta(seconds=100))
    assert api.get("/prices/latest?symbol=AAPL&max_age=200").status_code == 200
    problem = assert_problem(api.get("/prices/latest?symbol=AAPL&max_age=50"), 404)
    assert problem["age_seconds"] == pytest.approx(100, abs=10)


def test_latest_of_unknown_age_is_refused_by_any_max_age(api: APIClient) -> None:
    add_point("1", observed_at=None)
    assert_problem(api.get("/prices/latest?symbol=AAPL&max_age=999999"), 404)


@pytest.mark.parametrize(
    ("query", "field"), [("expand=all", "expand"), ("max_age=-1", "max_age"), ("max_age=1.5", "max_age")]
)
def test_latest_with_wrong_quality_query_names_the_field(api: APIClient, query: str, field: str) -> None:
    assert_problem(api.get(f"/prices/latest?symbol=AAPL&{query}"), 400, field=field)


@pytest.mark.parametrize("address", ["/prices/latest?symbol=AAPL&max_age=-1", "/jobs?limit=-1"])
def test_number_below_0_is_told_that_it_is_out_of_range(api: APIClient, address: str) -> None:
    problem = assert_problem(api.get(address), 400)
    assert problem["errors"][0]["problem"] == "is out of range"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/prices/stop", b'{"job_id": "1", "job_id": "2"}', "job_id"),
        ("/prices/poll", b'{"symbols": ["SIM-A"], "interval": 5, "interval": 5}', "interval"),
        ("/prices/poll", b'{"symbols": [{"a": 1, "a": 2}], "interval": 5}', "a"),
        ("/prices/poll", b'{"symb\\u006fls": ["SIM-A"], "symbols": ["SIM-B"], "interval": 5}', "symbols"),
    ],
)
def test_name_given_twice_is_refused(db: None, api: APIClient, path: str, body: bytes, field: str) -> None:
    answer = api.post(path, body, content_type="application/json")
    assert (answer.status_code, answer.json()["type"]) == (400, f"urn:marketdata:invalid-{field}")
    assert answer.json()["errors"] == [
        {"field": field, "problem": "is given more than once", "allowed": "once"}
    ]


def test_byte_order_mark_is_passed(db: None, api: APIClient) -> None:
    body = json.dumps({"symbols": ["SIM-A"], "interval": 5}).encode("utf-8-sig")
    assert api.post("/prices/poll", body, content_type="application/json").status_code == 202


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_other_encodings_are_named(db: None, api: APIClient, encoding: str) -> None:
    body = json.dumps({"symbols": ["SIM-A"], "interval": 5}).encode(encoding)
    answer = api.post("/prices/poll", body, content_type="application/json")
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:marketdata:invalid-body")
    assert f"the body is in {encoding.upper()}, and must be in UTF-8" in answer.json()["detail"]


def test_many_wrong_fields_are_told_in_a_short_answer(db: None, api: APIClient) -> None:
    answer = api.post("/prices/poll", {f"field{number}": 1 for number in range(5000)}, format="json")
    assert answer.status_code == 400
    assert len(answer.json()["errors"]) == 10


@pytest.mark.parametrize("name", ["", "a b", "é", 'quote"'])
def test_type_of_a_problem_is_a_uri_whatever_the_field(db: None, api: APIClient, name: str) -> None:
    body = {"symbols": ["SIM-A"], "interval": 5, name: 1}
    answer = api.post("/prices/poll", body, format="json")
    assert answer.json()["type"] == "urn:marketdata:invalid-request"
    assert answer.json()["errors"][0]["field"] == name


def test_age_of_a_price_too_old_is_never_told_as_less(api: APIClient) -> None:
    add_point("1", observed_at=datetime.now(UTC) - timedelta(seconds=50.1))
    problem = assert_problem(api.get("/prices/latest?symbol=AAPL&max_age=50"), 404)
    told = re.search(r"([0-9]+) s old", problem["detail"])
    assert told is not None
    assert int(told[1]) >= problem["age_seconds"]
