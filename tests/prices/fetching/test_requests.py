import threading
import time
from collections import Counter
from collections.abc import Sequence

import pytest
from pytest_django import Settings
from pytest_httpserver import HTTPServer
from redis import Redis as RedisClient

from prices.fetching import requests as fetching
from prices.fetching.budget_history import load_sent_times
from prices.fetching.exchange import RoundTrip, unknown_symbols
from prices.fetching.requests import FetchResult, StillWanted, ask_provider
from providers.adapters.yahoo import session as yahoo_session
from providers.base import ErrorKind
from providers.rate_limits import breaker
from providers.rate_limits.budget import SentTimes, remaining
from providers.rate_limits.outgoing import LOOKED_JUST_NOW_S
from providers.rate_limits.permits import Caller, Granted, Refusal, report_outcome, request_permit
from providers.rate_limits.symbol_leases import Lease
from providers.registry import get_provider
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db
QUOTE = '{"c":150.25,"d":1,"dp":1,"h":0,"l":0,"o":0,"pc":0,"t":1795000000}'
UNKNOWN = '{"c":0,"d":null,"dp":null,"h":0,"l":0,"o":0,"pc":0,"t":0}'


@pytest.fixture
def finnhub(settings: Settings, httpserver: HTTPServer) -> HTTPServer:
    settings.FINNHUB_BASE_URL = httpserver.url_for("").rstrip("/")
    settings.FINNHUB_API_KEY = "canary-key-123456"
    return httpserver


def ask(
    *symbols: str,
    kept: list[RoundTrip] | None = None,
    until_s: float = 10.0,
    patience_s: float = 0.0,
    caller: Caller = "job",
    still_wanted: StillWanted = lambda symbols: symbols,
) -> FetchResult:
    def keep(round_trip: RoundTrip) -> list[str]:
        if kept is not None:
            kept.append(round_trip)
        return unknown_symbols(round_trip)

    return ask_provider(
        get_provider("finnhub"),
        symbols,
        caller=caller,
        still_wanted=still_wanted,
        on_answer=keep,
        deadline=time.monotonic() + until_s,
        patience_s=patience_s,
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
        (400, '{"error":"?"}'),
        (404, "nothing here"),
        (422, ""),
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
    ask("AAPL", until_s=10.0)
    assert len(finnhub.log) == 1
    assert time.monotonic() - started < 10.0


def test_waits_between_retries_grow_and_vary(finnhub: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(fetching, "RETRY_AFTER_S", 0.1)
    slept = time.sleep

    def note(seconds: float) -> None:
        waits.append(seconds)
        slept(seconds)

    monkeypatch.setattr("prices.fetching.requests.time.sleep", note)
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
    assert (asked.in_flight_elsewhere, list(asked.results)) == (["MSFT"], ["AAPL"])


def test_symbol_not_wanted_any_more_is_free_for_others(finnhub: HTTPServer) -> None:
    def nothing(_symbols: Sequence[str]) -> Sequence[str]:
        return ()

    ask_provider(
        get_provider("finnhub"),
        ["AAPL"],
        caller="job",
        still_wanted=nothing,
        on_answer=unknown_symbols,
        deadline=time.monotonic() + 5,
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


@pytest.fixture
def only_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let windows of moments stand for those that are too long to be waited for in any case."""
    monkeypatch.setattr(fetching, "WORTH_WAITING_S", 0.0)


@pytest.mark.usefixtures("only_patience")
def test_room_in_a_long_window_is_waited_for_as_long_as_patience_lasts(
    finnhub: HTTPServer, settings: Settings
) -> None:
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"finnhub": "1/500ms"}
    finnhub.expect_request("/api/v1/quote").respond_with_data(QUOTE)
    asked = ask("A", "B", patience_s=10)
    assert (asked.refused, asked.sent) == (None, 2)


@pytest.mark.parametrize(("patience_s", "until_s"), [(0.0, 100.0), (30.0, 100.0), (100.0, 30.0)])
def test_room_that_comes_after_patience_or_time_is_over_ends_the_poll_at_once(
    finnhub: HTTPServer, settings: Settings, patience_s: float, until_s: float
) -> None:
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"finnhub": "1/1m"}
    finnhub.expect_request("/api/v1/quote").respond_with_data(QUOTE)
    started = time.monotonic()
    asked = ask("A", "B", patience_s=patience_s, until_s=until_s)
    assert asked.refused is not None
    assert (asked.refused.refusal, asked.sent) == (Refusal.BUDGET, 1)
    assert time.monotonic() - started < 10


@pytest.mark.usefixtures("only_patience")
def test_only_so_many_polls_of_a_process_wait_for_room(finnhub: HTTPServer, settings: Settings) -> None:
    filled = fetching.BUDGET_WAITS + 2
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"finnhub": f"{filled}/2s"}
    finnhub.expect_request("/api/v1/quote").respond_with_data(QUOTE)
    assert ask(*(f"BEFORE{number}" for number in range(filled))).sent == filled
    asked: list[FetchResult] = []
    polls = [
        threading.Thread(target=lambda symbol=f"S{number}": asked.append(ask(symbol, patience_s=10)))
        for number in range(filled)
    ]
    for poll in polls:
        poll.start()
    for poll in polls:
        poll.join()
    assert Counter(each.sent for each in asked) == {1: fetching.BUDGET_WAITS, 0: 2}
    assert {each.refused.refusal for each in asked if each.refused} == {Refusal.BUDGET}


@pytest.fixture
def broken(finnhub: HTTPServer, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> HTTPServer:
    """Return a provider that failed and answers again; it is left alone for moments."""
    settings.BREAKER_FAILURES = 1
    monkeypatch.setattr(breaker, "FIRST_COOLDOWN_S", 0.4)
    finnhub.expect_oneshot_request("/api/v1/quote").respond_with_data("down", status=503)
    finnhub.expect_request("/api/v1/quote").respond_with_data(QUOTE)
    asked = ask("BEFORE")
    assert asked.refused is not None
    assert (asked.refused.refusal, asked.sent) == (Refusal.BROKEN, 1)
    return finnhub


def test_poll_of_a_broken_provider_goes_on_after_the_cool_down(
    broken: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "WAIT_FOR_PROBE_S", 10.0)
    asked = ask("A", "B")
    assert (asked.refused, asked.errors, asked.sent) == (None, {}, 2)


def test_poll_waits_for_the_probe_of_another(broken: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "WAIT_FOR_PROBE_S", 20.0)
    probe = wait_until(granted_probe)
    assert probe is not None
    looks: list[Sequence[str]] = []
    asked: list[FetchResult] = []

    def wanted(symbols: Sequence[str]) -> Sequence[str]:
        looks.append(symbols)
        return symbols

    poll = threading.Thread(target=lambda: asked.append(ask("A", still_wanted=wanted)))
    poll.start()
    # It was refused, and looks again.
    wait_until(lambda: len(looks) > 1)
    (request,) = get_provider("finnhub").plan(["PROBE"])
    answer = get_provider("finnhub").fetch(request)
    report_outcome(probe, get_provider("finnhub").parse(answer), answer=answer)
    poll.join()
    assert [(each.refused, list(each.results)) for each in asked] == [(None, ["A"])]


def granted_probe() -> Granted | None:
    permit = request_permit("finnhub", caller="job", load_history=load_sent_times)
    return permit if isinstance(permit, Granted) else None


def test_poll_of_a_provider_that_stays_broken_gives_up(
    broken: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The probe's process dies, so nobody tells what came of it.
    wait_until(granted_probe)
    monkeypatch.setattr(fetching, "WAIT_FOR_PROBE_S", 0.6)
    started = time.monotonic()
    asked = ask("A")
    assert time.monotonic() - started >= 0.6
    assert asked.refused is not None
    assert (asked.refused.refusal, asked.sent) == (Refusal.BROKEN, 0)
    assert Lease("finnhub").take(["A"]).ours == ("A",)


def test_caller_of_latest_does_not_wait_for_a_broken_provider(
    broken: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_until(granted_probe)
    monkeypatch.setattr(fetching, "WAIT_FOR_PROBE_S", 60.0)
    started = time.monotonic()
    assert ask("A", caller="latest", until_s=60).refused is not None
    assert time.monotonic() - started < 10


def test_symbols_that_others_ask_for_are_told_apart_after_a_refusal(
    finnhub: HTTPServer, settings: Settings
) -> None:
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"finnhub": "1/1m"}
    finnhub.expect_request("/api/v1/quote").respond_with_data(QUOTE)
    Lease("finnhub").take(["C"])
    asked = ask("A", "B", "C", "D")
    assert asked.refused is not None
    assert (list(asked.results), asked.in_flight_elsewhere) == (["A"], ["C"])
    assert Lease("finnhub").take(["B", "D"]).ours == ("B", "D")


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
        still_wanted=lambda wanted: wanted,
        on_answer=keep,
        deadline=time.monotonic() + 5,
    )
    assert list(asked.results) == ["AAPL"]
    assert asked.refused is not None
    assert asked.refused.reason == "budget unavailable: Redis cannot be reached"
    assert len(kept) == 1


def test_each_request_to_yahoo_counts_also_those_for_cookie_and_crumb(
    settings: Settings, httpserver: HTTPServer
) -> None:
    settings.YAHOO_BASE_URL = httpserver.url_for("").rstrip("/")
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
        still_wanted=lambda wanted: wanted,
        on_answer=unknown_symbols,
        deadline=time.monotonic() + 30,
    )
    yahoo_session.forget_clients()
    by_window = {use.window_s: use.used for use in remaining("yfinance").windows or ()}
    assert len(httpserver.log) > 4
    assert by_window[60] == len(httpserver.log)


@pytest.mark.parametrize("what", ["the job was stopped", "the time is over"])
def test_no_request_begins_after_a_long_wait_for_history(finnhub: HTTPServer, what: str) -> None:
    finnhub.expect_request("/api/v1/quote").respond_with_data("{}")
    is_stopped = threading.Event()
    until = time.monotonic() + (30 if what == "the job was stopped" else 0.2)

    def load_slowly(provider: str, seconds: float) -> SentTimes:
        # Longer than a look at what is wanted holds.
        waited_until = time.monotonic() + 2 * LOOKED_JUST_NOW_S
        wait_until(lambda: time.monotonic() > waited_until)
        is_stopped.set()
        return load_sent_times(provider, seconds)

    found = ask_provider(
        get_provider("finnhub"),
        ["A"],
        caller="job",
        still_wanted=lambda symbols: () if what == "the job was stopped" and is_stopped.is_set() else symbols,
        on_answer=unknown_symbols,
        deadline=until,
        load_history=load_slowly,
    )
    assert is_stopped.is_set()
    assert (found.sent, finnhub.log) == (0, [])
