import time
from collections.abc import Sequence

import pytest
from pytest_django import Settings
from pytest_httpserver import HTTPServer
from redis import Redis as RedisClient

from prices import fetching
from prices.fetching import Asked, ask_provider
from prices.round_trips import RoundTrip, unknown_symbols
from providers import yahoo_session
from providers.base import ErrorKind
from providers.budget import remaining
from providers.leases import Lease
from providers.permits import Refusal
from providers.registry import get_provider

pytestmark = pytest.mark.django_db
QUOTE = '{"c":150.25,"d":1,"dp":1,"h":1,"l":1,"o":1,"pc":1,"t":1795000000}'
UNKNOWN = '{"c":0,"d":null,"dp":null,"h":0,"l":0,"o":0,"pc":0,"t":0}'


@pytest.fixture
def finnhub(settings: Settings, httpserver: HTTPServer) -> HTTPServer:
    settings.FINNHUB_BASE_URL = httpserver.url_for("").rstrip("/")
    settings.FINNHUB_API_KEY = "canary-key-123456"
    return httpserver


def ask(*symbols: str, kept: list[RoundTrip] | None = None, until_s: float = 10.0) -> Asked:
    def keep(round_trip: RoundTrip) -> list[str]:
        if kept is not None:
            kept.append(round_trip)
        return unknown_symbols(round_trip)

    return ask_provider(
        get_provider("finnhub"),
        symbols,
        caller="job",
        wanted=lambda wanted: wanted,
        keep=keep,
        until=time.monotonic() + until_s,
    )


def test_failure_that_may_pass_is_retried_and_each_answer_kept(finnhub: HTTPServer) -> None:
    finnhub.expect_ordered_request("/api/v1/quote").respond_with_data("down", status=503)
    finnhub.expect_ordered_request("/api/v1/quote").respond_with_data(QUOTE)
    kept: list[RoundTrip] = []
    asked = ask("AAPL", kept=kept)
    assert (asked.errors, asked.sent) == ({}, 2)
    assert [round_trip.answer.status for round_trip in kept if round_trip.answer] == [503, 200]


def test_failure_is_retried_twice_at_most(finnhub: HTTPServer) -> None:
    finnhub.expect_request("/api/v1/quote").respond_with_data("down", status=503)
    assert ask("AAPL").errors["AAPL"].kind == ErrorKind.UPSTREAM_ERROR
    assert len(finnhub.log) == 3


def test_failure_is_retried_once_where_the_budget_is_by_the_day(
    finnhub: HTTPServer, settings: Settings
) -> None:
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"finnhub": "100/1d"}
    finnhub.expect_request("/api/v1/quote").respond_with_data("down", status=503)
    ask("AAPL")
    assert len(finnhub.log) == 2


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, '{"error":"API limit reached. Please try again later."}'),
        (401, '{"error":"Invalid API key."}'),
        (403, '{"error":"You don\'t have access to this resource."}'),
        (200, UNKNOWN),
        (200, "{"),
    ],
)
def test_what_a_retry_cannot_help_is_sent_once(finnhub: HTTPServer, status: int, body: str) -> None:
    finnhub.expect_request("/api/v1/quote").respond_with_data(body, status=status)
    ask("AAPL")
    assert len(finnhub.log) == 1


def test_nothing_is_retried_past_the_deadline(finnhub: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "RETRY_AFTER_S", 30.0)
    finnhub.expect_request("/api/v1/quote").respond_with_data("down", status=503)
    started = time.monotonic()
    ask("AAPL", until_s=1.0)
    assert len(finnhub.log) == 1
    assert time.monotonic() - started < 1.0


def test_waits_between_retries_grow_and_vary(finnhub: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(fetching, "RETRY_AFTER_S", 0.1)
    slept = time.sleep

    def note(seconds: float) -> None:
        waits.append(seconds)
        slept(seconds)

    monkeypatch.setattr("prices.fetching.time.sleep", note)
    finnhub.expect_request("/api/v1/quote").respond_with_data("down", status=503)
    ask("AAPL")
    assert len(waits) == 2
    assert 0.05 <= waits[0] <= 0.1 <= waits[1] <= 0.2


def test_limit_of_the_rate_ends_the_poll_and_is_not_retried_before_its_time(finnhub: HTTPServer) -> None:
    limited = '{"error":"API limit reached. Please try again later."}'
    finnhub.expect_request("/api/v1/quote").respond_with_data(limited, status=429)
    asked = ask("AAPL", "MSFT")
    assert {error.kind for error in asked.errors.values()} == {ErrorKind.RATE_LIMITED}
    again = ask("AAPL")
    assert again.refused is not None
    assert again.refused.refusal == Refusal.HELD
    assert len(finnhub.log) == 1


def test_symbol_under_way_elsewhere_is_left_to_those_who_ask(finnhub: HTTPServer) -> None:
    finnhub.expect_request("/api/v1/quote").respond_with_data(QUOTE)
    Lease("finnhub").take(["MSFT"])
    asked = ask("AAPL", "MSFT")
    assert (asked.elsewhere, list(asked.results)) == (["MSFT"], ["AAPL"])


def test_symbol_not_wanted_any_more_is_free_for_others(finnhub: HTTPServer) -> None:
    def nothing(_symbols: Sequence[str]) -> Sequence[str]:
        return ()

    ask_provider(
        get_provider("finnhub"),
        ["AAPL"],
        caller="job",
        wanted=nothing,
        keep=unknown_symbols,
        until=time.monotonic() + 5,
    )
    assert finnhub.log == []
    assert Lease("finnhub").take(["AAPL"]).ours == ("AAPL",)


def test_symbol_refused_by_the_budget_is_free_for_others(finnhub: HTTPServer, settings: Settings) -> None:
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"finnhub": "1/1m"}
    finnhub.expect_request("/api/v1/quote").respond_with_data(QUOTE)
    assert ask("AAPL", "MSFT").refused is not None
    assert Lease("finnhub").take(["AAPL", "MSFT"]).ours == ("AAPL", "MSFT")


def test_short_wait_for_the_budget_is_waited_for(finnhub: HTTPServer, settings: Settings) -> None:
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"finnhub": "2/1s"}
    finnhub.expect_request("/api/v1/quote").respond_with_data(QUOTE)
    asked = ask("A", "B", "C")
    assert (asked.refused, asked.sent) == (None, 3)


def test_redis_lost_in_mid_poll_ends_it_with_what_came(
    finnhub: HTTPServer, settings: Settings, own_counts: RedisClient
) -> None:
    finnhub.expect_request("/api/v1/quote").respond_with_data(QUOTE)
    kept: list[RoundTrip] = []

    def keep(round_trip: RoundTrip) -> list[str]:
        kept.append(round_trip)
        settings.REDIS_URL = "redis://127.0.0.1:1"
        return []

    asked = ask_provider(
        get_provider("finnhub"),
        ["AAPL", "MSFT"],
        caller="job",
        wanted=lambda wanted: wanted,
        keep=keep,
        until=time.monotonic() + 5,
    )
    assert list(asked.results) == ["AAPL"]
    assert asked.refused is not None
    assert asked.refused.reason == "budget unavailable: Redis cannot be reached"
    assert len(kept) == 1


def test_each_request_to_yahoo_counts_also_those_for_cookie_and_crumb(
    settings: Settings, httpserver: HTTPServer
) -> None:
    settings.YAHOO_BASE_URL = httpserver.url_for("").rstrip("/")
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"yfinance": "100/1m"}
    httpserver.expect_request("/").respond_with_data(
        "", status=404, headers={"Set-Cookie": "A3=cookie; path=/"}
    )
    httpserver.expect_request("/v1/test/getcrumb").respond_with_data("crumb")
    httpserver.expect_request("/v7/finance/quote").respond_with_data("Invalid Crumb", status=401)
    httpserver.expect_request("/v8/finance/chart/A").respond_with_data("{}")
    httpserver.expect_request("/v8/finance/chart/B").respond_with_data("{}")
    yahoo_session.forget_clients()
    ask_provider(
        get_provider("yfinance"),
        ["A", "B"],
        caller="job",
        wanted=lambda wanted: wanted,
        keep=unknown_symbols,
        until=time.monotonic() + 30,
    )
    yahoo_session.forget_clients()
    windows = remaining("yfinance").windows
    assert windows is not None
    assert len(httpserver.log) > 4
    assert windows[0].used == len(httpserver.log)
