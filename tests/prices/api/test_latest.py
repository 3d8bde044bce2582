"""GET /prices/latest over REST: what it tells besides the price, and what a cache may do with it."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings
from rest_framework.test import APIClient

from tests.prices.two_providers import (
    KEYS,
    TwoProviders,
    add_point,
    alpha_vantage_quote,
    finnhub_quote,
    running_day,
)

pytestmark = pytest.mark.django_db(transaction=True)
ADDRESS = "/prices/latest?symbol=AAPL"
DAY_S = 86_400
UNKNOWN = '{"c":0,"d":null,"dp":null,"h":0,"l":0,"o":0,"pc":0,"t":0}'


def problem_of(api: APIClient, address: str = ADDRESS) -> tuple[int, dict[str, Any]]:
    answer = api.get(address)
    assert answer["Content-Type"] == "application/problem+json"
    assert answer["Cache-Control"] == "no-store"
    assert not any(key in answer.content.decode() for key in KEYS.values())
    return answer.status_code, json.loads(answer.content)


# --- Attempts -------------------------------------------------------------------------------------


def test_quality_names_who_failed_before_the_one_that_served(api: APIClient, providers: TwoProviders) -> None:
    providers.answer("finnhub", '{"error":"Invalid API key."}', status=401)
    providers.answer("alpha_vantage", alpha_vantage_quote())
    body = api.get(f"{ADDRESS}&expand=quality").json()
    assert body["provider"] == "alpha_vantage"
    (attempt,) = body["attempts"]
    assert (attempt["provider"], attempt["error"]) == ("finnhub", "invalid_key")
    assert attempt["message"].endswith(".")
    assert KEYS["finnhub"] not in attempt["message"]


def test_quality_of_the_first_that_serves_has_no_attempts(api: APIClient, providers: TwoProviders) -> None:
    providers.answer("finnhub", finnhub_quote())
    assert api.get(f"{ADDRESS}&expand=quality").json()["attempts"] == []
    # The second answer is what is stored.
    assert api.get(f"{ADDRESS}&expand=quality").json()["attempts"] == []


def test_stored_price_that_stands_in_tells_why_and_keeps_the_contract(
    api: APIClient, providers: TwoProviders
) -> None:
    stored = add_point("finnhub", observed_s_ago=120, received_s_ago=110)
    providers.answer("finnhub", "down", status=503)
    address = f"{ADDRESS}&provider=finnhub"
    body = api.get(address).json()
    assert list(body) == ["symbol", "price", "timestamp", "provider"]
    assert datetime.fromisoformat(body["timestamp"]) == stored.observed_at
    quality = api.get(f"{address}&expand=quality").json()
    assert [attempt["error"] for attempt in quality["attempts"]] == ["upstream_error"]
    assert quality["age_seconds"] == pytest.approx(120, abs=10)
    assert quality["freshness"] in {"fresh", "delayed"}


@pytest.mark.parametrize(
    ("finnhub", "alpha_vantage", "status", "name"),
    [
        ((UNKNOWN, 200), ('{"Global Quote": {}}', 200), 404, "unknown-symbol"),
        ((UNKNOWN, 200), ("down", 503), 502, "upstream-error"),
        (('{"error":"API limit reached."}', 429), (UNKNOWN, 500), 502, "upstream-error"),
        (('{"error":"Invalid API key."}', 401), ('{"Global Quote": {}}', 200), 502, "invalid-key"),
    ],
)
def test_problem_of_all_that_fail_is_the_telling_one_with_all_attempts(
    api: APIClient,
    providers: TwoProviders,
    finnhub: tuple[str, int],
    alpha_vantage: tuple[str, int],
    status: int,
    name: str,
) -> None:
    providers.answer("finnhub", finnhub[0], status=finnhub[1])
    providers.answer("alpha_vantage", alpha_vantage[0], status=alpha_vantage[1])
    found, problem = problem_of(api)
    assert (found, problem["status"], problem["type"]) == (status, status, f"urn:marketdata:{name}")
    assert [attempt["provider"] for attempt in problem["attempts"]] == list(KEYS)
    assert problem["detail"].startswith("No provider gave a price. ")


def test_problem_of_budgets_that_are_used_up_tells_when_to_come_back(
    api: APIClient, providers: TwoProviders, settings: Settings
) -> None:
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"finnhub": "4/1d", "alpha_vantage": "4/2d"}
    answer = api.get(ADDRESS)
    assert answer.status_code == 429
    # Finnhub's comes sooner than Alpha Vantage's.
    assert int(answer["Retry-After"]) == DAY_S
    assert [attempt["error"] for attempt in answer.json()["attempts"]] == ["latest_share", "latest_share"]


def test_price_that_stands_in_but_is_too_old_for_the_caller_tells_why_none_is_younger(
    api: APIClient, providers: TwoProviders
) -> None:
    add_point("finnhub", observed_s_ago=120, received_s_ago=110)
    providers.answer("finnhub", "down", status=503)
    status, problem = problem_of(api, f"{ADDRESS}&provider=finnhub&max_age=60")
    assert (status, problem["type"]) == (404, "urn:marketdata:too-old")
    assert [attempt["error"] for attempt in problem["attempts"]] == ["upstream_error"]


def test_max_age_is_met_by_a_newer_stored_price_of_another_provider(
    api: APIClient, providers: TwoProviders
) -> None:
    add_point("yfinance", price="7", observed_s_ago=40, received_s_ago=30)
    providers.answer("finnhub", finnhub_quote("5", observed_s_ago=900))
    assert api.get(f"{ADDRESS}&max_age=60").json()["provider"] == "yfinance"
    assert providers.requests("finnhub") == 1
    # And once more, with Finnhub's older one received just now.
    assert api.get(f"{ADDRESS}&max_age=60").json()["provider"] == "yfinance"
    assert providers.requests("finnhub") == 1


def test_delayed_price_of_a_job_keeps_nobody_from_the_first_provider(
    api: APIClient, providers: TwoProviders
) -> None:
    add_point("yfinance", price="7", observed_s_ago=900, received_s_ago=5)
    providers.answer("finnhub", finnhub_quote("5", observed_s_ago=5))
    assert api.get(f"{ADDRESS}&max_age=60").json()["provider"] == "finnhub"
    assert providers.requests("finnhub") == 1


@pytest.mark.parametrize("query", ["", "&max_age=60"])
def test_order_of_providers_holds_whoever_was_polled_last(
    api: APIClient, providers: TwoProviders, query: str
) -> None:
    add_point("alpha_vantage", price="7", observed_s_ago=50, received_s_ago=3)
    providers.answer("finnhub", finnhub_quote("5"))
    assert api.get(f"{ADDRESS}{query}").json()["provider"] == "finnhub"


def test_delayed_provider_is_not_asked_again_for_each_call(
    api: APIClient, providers: TwoProviders, settings: Settings
) -> None:
    settings.PROVIDER_ORDER = ["finnhub"]
    providers.answer("finnhub", finnhub_quote("5", observed_s_ago=900))
    for _ in range(3):
        assert problem_of(api, f"{ADDRESS}&max_age=60")[0] == 404
    assert providers.requests("finnhub") == 1


def test_provider_polled_just_now_answers_in_its_turn(api: APIClient, providers: TwoProviders) -> None:
    add_point("alpha_vantage", price="7", observed_s_ago=20, received_s_ago=10)
    providers.answer("finnhub", "down", status=503)
    assert api.get(ADDRESS).json()["price"] == 7
    assert providers.requests("alpha_vantage") == 0


def test_price_too_old_for_the_caller_is_followed_by_the_next_provider(
    api: APIClient, providers: TwoProviders, settings: Settings
) -> None:
    settings.PROVIDER_ORDER = ["alpha_vantage", "finnhub"]
    providers.answer("alpha_vantage", alpha_vantage_quote())
    providers.answer("finnhub", finnhub_quote("5"))
    body = api.get(f"{ADDRESS}&max_age=60&expand=quality").json()
    assert (body["provider"], body["price"]) == ("finnhub", 5)
    (attempt,) = body["attempts"]
    assert (attempt["provider"], attempt["error"]) == ("alpha_vantage", "too_old")


def test_prices_that_are_all_too_old_are_told_with_the_newest_age(
    api: APIClient, providers: TwoProviders
) -> None:
    providers.answer("finnhub", finnhub_quote("5", observed_s_ago=900))
    providers.answer("alpha_vantage", alpha_vantage_quote())
    status, problem = problem_of(api, f"{ADDRESS}&max_age=60")
    assert (status, problem["type"]) == (404, "urn:marketdata:too-old")
    assert 900 <= problem["age_seconds"] < 960
    assert [attempt["provider"] for attempt in problem["attempts"]] == ["alpha_vantage"]


@pytest.mark.parametrize(("received_s_ago", "max_age"), [(10, 5), (1, 0)])
def test_max_age_below_what_is_reused_fetches_anew(
    api: APIClient, providers: TwoProviders, received_s_ago: int, max_age: int
) -> None:
    add_point("finnhub", price="1", observed_s_ago=received_s_ago, received_s_ago=received_s_ago)
    # The provider's clock is ahead, so the new price has no age at all.
    providers.answer("finnhub", finnhub_quote("2", observed_s_ago=-30))
    address = f"{ADDRESS}&provider=finnhub"
    assert api.get(f"{address}&max_age=60").json()["price"] == 1
    assert providers.requests("finnhub") == 0
    answer = api.get(f"{address}&max_age={max_age}")
    assert (answer.status_code, answer.json()["price"]) == (200, 2)
    assert providers.requests("finnhub") == 1


# --- Prices of the running day --------------------------------------------------------------------


def test_price_of_the_running_day_has_no_age_and_meets_no_max_age(
    api: APIClient, providers: TwoProviders
) -> None:
    providers.answer("alpha_vantage", alpha_vantage_quote(day=running_day()))
    address = f"{ADDRESS}&provider=alpha_vantage"
    body = api.get(f"{address}&expand=quality").json()
    assert (body["age_seconds"], body["precision"]) == (None, "day")
    assert body["timestamp"] == body["observed_at"] == body["received_at"]
    status, problem = problem_of(api, f"{address}&max_age=999999")
    assert (status, problem["type"]) == (404, "urn:marketdata:too-old")
    assert problem.get("age_seconds") is None


def test_price_of_the_running_day_gives_way_to_one_of_a_known_time(
    api: APIClient, providers: TwoProviders
) -> None:
    add_point("yfinance", price="7", observed_s_ago=3600, received_s_ago=3500)
    providers.answer("finnhub", "down", status=503)
    providers.answer("alpha_vantage", alpha_vantage_quote(day=running_day()))
    assert api.get(ADDRESS).json()["provider"] == "yfinance"
    assert providers.requests("alpha_vantage") == 1


# --- Caches ---------------------------------------------------------------------------------------


def test_price_may_be_kept_as_long_as_it_is_reused_from_when_it_was_received(
    api: APIClient, settings: Settings
) -> None:
    settings.LATEST_REUSE_S = 40
    add_point("finnhub", observed_s_ago=300, received_s_ago=12)
    answer = api.get(ADDRESS)
    assert answer["Cache-Control"] == "public, max-age=40"
    assert 12 <= int(answer["Age"]) <= 20


def test_price_that_stands_in_is_too_old_to_be_kept(api: APIClient, providers: TwoProviders) -> None:
    add_point("finnhub", observed_s_ago=120, received_s_ago=110)
    providers.answer("finnhub", "down", status=503)
    answer = api.get(f"{ADDRESS}&provider=finnhub")
    assert answer["Cache-Control"] == "public, max-age=15"
    assert int(answer["Age"]) >= 110


@pytest.mark.parametrize("query", ["expand=quality", "max_age=1000"])
def test_answer_that_tells_an_age_is_true_now_only(api: APIClient, query: str) -> None:
    add_point("finnhub", observed_s_ago=10, received_s_ago=5)
    answer = api.get(f"{ADDRESS}&{query}")
    assert (answer.status_code, answer["Cache-Control"]) == (200, "no-store")


def test_age_of_an_answer_received_by_a_clock_ahead_is_nought(api: APIClient) -> None:
    point = add_point("finnhub", observed_s_ago=10, received_s_ago=5)
    point.received_at = datetime.now(UTC) + timedelta(seconds=20)
    point.save(update_fields=["received_at"])
    assert api.get(ADDRESS)["Age"] == "0"


@pytest.mark.parametrize(
    ("method", "address", "status"),
    [
        ("get", "/prices/latest", 400),
        ("get", "/prices/latest?symbol=%00", 400),
        ("get", "/prices/nothing", 404),
        ("get", "/jobs/01a20694-6b2e-7c1d-9a55-0f3e8d1c7b42", 404),
        ("delete", "/prices/latest", 405),
        ("post", "/prices/poll", 415),
    ],
)
def test_problem_is_never_kept(client: Client, method: str, address: str, status: int) -> None:
    answer = getattr(client, method)(address)
    assert (answer.status_code, answer["Cache-Control"]) == (status, "no-store")


def test_schema_tells_headers_attempts_and_statuses(api: APIClient) -> None:
    schema = json.loads(
        api.get("/api/schema", headers={"accept": "application/vnd.oai.openapi+json"}).content
    )
    answers = schema["paths"]["/prices/latest"]["get"]["responses"]
    assert set(answers) == {"200", "400", "404", "429", "502", "503", "504"}
    assert set(answers["200"]["headers"]) == {"Age", "Cache-Control"}
    for status in ("429", "503", "504"):
        assert set(answers[status]["headers"]) == {"Retry-After", "Cache-Control"}
    for name in ("Latest", "Problem"):
        attempts = schema["components"]["schemas"][name]["properties"]["attempts"]
        assert attempts["items"] == {"$ref": "#/components/schemas/Attempt"}
    assert "too_old" in schema["components"]["schemas"]["AttemptError"]["enum"]
