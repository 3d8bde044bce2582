"""/_faults and /_requests over HTTP."""

import time
from typing import Any

import pytest
import requests

from providers.base import ErrorKind
from providers.simulator.engine import PROVIDERS
from providers.simulator.faults import Faults
from providers.simulator.simulator import Simulator
from tests.providers.answers import kind_of, quote_of
from tests.simulator import KEY, ask

NO_FAULTS = Faults().as_dict()


def call(simulator: Simulator, method: str, path: str, body: Any = None) -> requests.Response:
    data = body if isinstance(body, str | bytes) else None
    json = None if data is not None else body
    return requests.request(method, simulator.url + path, data=data, json=json, timeout=5)


def test_faults_are_told_changed_and_ended(simulator: Simulator) -> None:
    assert call(simulator, "GET", "/_faults").json() == dict.fromkeys(PROVIDERS, NO_FAULTS)
    changed = call(simulator, "PATCH", "/_faults", {"not_entitled": True, "rate_limit": "60/1m"})
    wrong = NO_FAULTS | {"not_entitled": True, "rate_limit": "60/1m"}
    assert changed.json() == dict.fromkeys(PROVIDERS, wrong)
    assert kind_of(ask("finnhub")) == ErrorKind.NOT_ENTITLED
    ended = call(simulator, "DELETE", "/_faults/finnhub")
    assert ended.json() == NO_FAULTS
    told = call(simulator, "GET", "/_faults").json()
    assert told == dict.fromkeys(PROVIDERS, wrong) | {"finnhub": NO_FAULTS}
    quote_of(ask("finnhub"))
    assert kind_of(ask("alpha_vantage")) == ErrorKind.NOT_ENTITLED


def test_outage_is_ended_at_the_same_port(simulator: Simulator) -> None:
    assert call(simulator, "PATCH", "/_faults/finnhub", {"outage": True}).json()["outage"] is True
    assert kind_of(ask("finnhub")) == ErrorKind.UPSTREAM_ERROR
    assert call(simulator, "GET", "/_faults/finnhub").json()["outage"] is True
    call(simulator, "PATCH", "/_faults/finnhub", {"outage": False})
    quote_of(ask("finnhub"))


def test_limit_that_is_set_again_counts_anew(simulator: Simulator) -> None:
    for _ in range(2):
        call(simulator, "PATCH", "/_faults", {"rate_limit": "1/1h"})
        quote_of(ask("finnhub"))
        call(simulator, "PATCH", "/_faults", {"latency_s": 0})
        assert kind_of(ask("finnhub")) == ErrorKind.RATE_LIMITED


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"error_rate": 2}, "error_rate must be a number from 0 to 1, not 2"),
        ('{"latency_s": NaN}', "latency_s must be a number of seconds from 0 to 600, not NaN"),
        ("", "the body must be a JSON object such as"),
        ("[]", "the body must be a JSON object such as"),
        (b"\xff", "the body must be a JSON object such as"),
        ("[" * 60_000, "the body must be a JSON object such as"),
        ('{"stale_s": ' + "9" * 5000 + "}", "the body must be a JSON object such as"),
    ],
    ids=["range", "nan", "empty", "list", "binary", "deep", "long-number"],
)
def test_bad_faults_are_refused_and_change_nothing(simulator: Simulator, body: Any, problem: str) -> None:
    answer = call(simulator, "PATCH", "/_faults", body)
    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert error.startswith(problem)
    assert call(simulator, "GET", "/_faults/finnhub").json() == NO_FAULTS


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/_faults/yahoo", 404),
        ("GET", "/_requests/finnhub", 404),
        ("POST", "/_faults", 405),
        ("PUT", "/_requests", 405),
        ("POST", "/query", 404),
        ("GET", "/_requests?limit=-1", 400),
        ("GET", "/_requests?limit=two", 400),
    ],
)
def test_call_that_is_none_is_refused_in_words(
    simulator: Simulator, method: str, path: str, status: int
) -> None:
    answer = call(simulator, method, path)
    assert answer.status_code == status
    assert answer.json()["errors"]


def test_large_body_is_refused(simulator: Simulator) -> None:
    assert call(simulator, "PATCH", "/_faults", "x" * 70_000).status_code == 413


def test_requests_are_told_counted_and_forgotten(simulator: Simulator) -> None:
    started = time.time()
    ask("finnhub", "AAPL")
    ask("finnhub", "UNKNOWN")
    simulator.change(outage=True)
    ask("alpha_vantage", "USD/JPY")
    told = call(simulator, "GET", "/_requests").json()
    assert [{**each, "time": 0} for each in told["requests"]] == [
        {"time": 0, "provider": "finnhub", "symbol": "AAPL", "status": 200, "outcome": "quote"},
        {"time": 0, "provider": "finnhub", "symbol": "UNKNOWN", "status": 200, "outcome": "unknown_symbol"},
        {"time": 0, "provider": "alpha_vantage", "symbol": "USD/JPY", "status": None, "outcome": "outage"},
    ]
    times = [each["time"] for each in told["requests"]]
    assert started <= times[0] <= times[1] <= times[2] <= time.time()
    assert told["counts"]["finnhub"]["outcomes"] == {"quote": 1, "unknown_symbol": 1}
    assert told["counts"]["finnhub"]["busiest_minute"] == 2
    newest = call(simulator, "GET", "/_requests?limit=1").json()
    assert (newest["requests"], newest["counts"]) == (told["requests"][-1:], told["counts"])
    assert call(simulator, "DELETE", "/_requests").status_code == 200
    assert call(simulator, "GET", "/_requests").json() == {"counts": {}, "requests": []}


def test_key_is_in_no_log(simulator: Simulator) -> None:
    simulator.change(rate_limit="1/1d")
    for provider in ("finnhub", "alpha_vantage", "finnhub", "alpha_vantage"):
        ask(provider)
    told = call(simulator, "GET", "/_requests").text + call(simulator, "GET", "/_faults").text
    assert "IBM" in told
    assert KEY.lower() not in told.lower()
