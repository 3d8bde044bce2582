"""The service's own adapters ask the simulator: quotes, each kind of error, and faults that come and go."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
import requests
from pytest_django import Settings

from providers.adapters.simulated import price_at
from providers.base import ErrorKind
from providers.http.redaction import REDACTED
from providers.markets.hours import NEW_YORK
from providers.registry import get_provider
from providers.simulator.faults import ErrorMode
from providers.simulator.simulator import Simulator
from tests.providers.answers import error_of, kind_of, parse_one, quote_of
from tests.simulator import KEY, ask

FRIDAY = 4
# Those with a key; the third one is in test_yahoo.py.
both_providers = pytest.mark.parametrize("provider", ["finnhub", "alpha_vantage"])


def now() -> datetime:
    return datetime.now(UTC)


@pytest.mark.parametrize(
    ("symbol", "spelling"), [("AAPL", "AAPL"), ("BRK-B", "BRK.B"), ("BINANCE:BTCUSDT", "BINANCE:BTCUSDT")]
)
def test_finnhub_quotes_the_price_of_the_second_it_tells(
    simulator: Simulator, symbol: str, spelling: str
) -> None:
    quote = quote_of(ask("finnhub", symbol))
    assert quote.observed_at
    assert now() - quote.observed_at < timedelta(seconds=5)
    assert quote.price == Decimal(price_at(spelling, int(quote.observed_at.timestamp())))
    assert quote.precision == "second"


def test_alpha_vantage_quotes_a_price_of_a_day(simulator: Simulator) -> None:
    started = int(now().timestamp())
    quote = quote_of(ask("alpha_vantage", "IBM"))
    seconds = range(started, int(now().timestamp()) + 1)
    assert quote.price in {Decimal(price_at("IBM", second)) for second in seconds}
    assert quote.precision == "day"


def test_alpha_vantage_quotes_a_pair_of_currencies(simulator: Simulator) -> None:
    quote = quote_of(ask("alpha_vantage", "USD/JPY"))
    assert quote.observed_at
    assert quote.price == Decimal(price_at("USD/JPY", int(quote.observed_at.timestamp())))
    assert (quote.currency, quote.precision) == ("JPY", "second")


def test_alpha_vantage_answers_in_csv(simulator: Simulator) -> None:
    query = {"function": "GLOBAL_QUOTE", "apikey": KEY, "datatype": "csv"}
    answer = requests.get(f"{simulator.url}/query", params=query | {"symbol": "IBM"}, timeout=5)
    assert answer.text.splitlines()[0].startswith("symbol,open,high,low,price,volume,latestDay,")
    read = {"received_at": now()}
    assert quote_of(parse_one("alpha_vantage", "IBM", answer.content, **read)).price > 0
    unknown = requests.get(f"{simulator.url}/query", params=query | {"symbol": "UNKNOWN"}, timeout=5)
    assert unknown.text == "{}"


@both_providers
@pytest.mark.parametrize(
    ("faults", "symbol", "kind"),
    [
        ({}, "UNKNOWN-CO", ErrorKind.UNKNOWN_SYMBOL),
        ({}, "no symbol!", ErrorKind.UNKNOWN_SYMBOL),
        ({"invalid_key": True}, "IBM", ErrorKind.INVALID_KEY),
        ({"not_entitled": True}, "IBM", ErrorKind.NOT_ENTITLED),
        ({"outage": True}, "IBM", ErrorKind.UPSTREAM_ERROR),
        ({"error_rate": 1, "error": "502"}, "IBM", ErrorKind.UPSTREAM_ERROR),
        ({"error_rate": 1, "error": "503"}, "IBM", ErrorKind.UPSTREAM_ERROR),
        ({"error_rate": 1, "error": "html"}, "IBM", ErrorKind.UPSTREAM_ERROR),
        ({"error_rate": 1, "error": "reset"}, "IBM", ErrorKind.UPSTREAM_ERROR),
        ({"error_rate": 1, "error": "hang"}, "IBM", ErrorKind.UPSTREAM_ERROR),
        ({"error_rate": 1, "error": "malformed"}, "IBM", ErrorKind.MALFORMED),
        ({"error_rate": 1, "error": "truncated"}, "IBM", ErrorKind.MALFORMED),
    ],
    ids=str,
)
def test_fault_reads_as_its_kind_of_error(
    simulator: Simulator,
    settings: Settings,
    provider: str,
    faults: dict[str, Any],
    symbol: str,
    kind: ErrorKind,
) -> None:
    settings.PROVIDER_TIMEOUT_S = 0.3 if faults.get("error") == "hang" else 10
    simulator.change(**faults)
    assert kind_of(ask(provider, symbol)) == kind
    assert len(simulator.requests(provider)) == 1


@both_providers
def test_blank_key_is_refused_as_the_real_one_does(simulator: Simulator, provider: str) -> None:
    path = {"finnhub": "/api/v1/quote?", "alpha_vantage": "/query?function=GLOBAL_QUOTE&apikey=%20&"}
    answer = requests.get(f"{simulator.url}{path[provider]}symbol=IBM", timeout=5)
    assert answer.status_code == {"finnhub": 429, "alpha_vantage": 200}[provider]
    result = parse_one(provider, "IBM", answer.content, status=answer.status_code)
    assert kind_of(result) == ErrorKind.INVALID_KEY


@pytest.mark.parametrize(
    ("provider", "limits", "shortest_s", "longest_s"),
    [
        ("finnhub", "1/10s", 1, 11),
        ("finnhub", "1/1m", 55, 61),
        ("finnhub", "9/1m,1/1h", 3500, 3601),
        ("alpha_vantage", "1/10s", 1, 1),
        ("alpha_vantage", "1/1m", 60, 60),
        # Until midnight in New York, which may be near.
        ("alpha_vantage", "9/1s,1/1d", 0, 86_400),
    ],
)
def test_request_beyond_the_limit_is_told_to_wait(
    simulator: Simulator, provider: str, limits: str, shortest_s: float, longest_s: float
) -> None:
    simulator.change(rate_limit=limits)
    quote_of(ask(provider))
    error = error_of(ask(provider))
    assert error.kind == ErrorKind.RATE_LIMITED
    assert error.retry_after is not None
    assert shortest_s <= error.retry_after <= longest_s
    assert [received.outcome for received in simulator.requests()] == ["quote", "rate_limited"]


def test_finnhub_counts_down_in_its_headers(simulator: Simulator) -> None:
    adapter = get_provider("finnhub")
    (request,) = adapter.plan(["IBM"])
    assert not [name for name in adapter.fetch(request).headers if name.startswith("x-ratelimit")]
    simulator.change(rate_limit="9/1s,2/1h")
    answers = [adapter.fetch(request) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["1", "0", "0"]
    assert {answer.headers["x-ratelimit-limit"] for answer in answers} == {"2"}
    resets_in = int(answers[1].headers["x-ratelimit-reset"]) - now().timestamp()
    assert 3590 < resets_in <= 3601


@pytest.mark.parametrize(
    ("limits", "member", "words"),
    [
        ("1/1s", "Information", "spreading out your requests: 1 calls per second."),
        ("5/1m", "Note", "call frequency is 5 calls per minute."),
        ("9/5m", "Note", "call frequency is 9 calls per 5 minutes."),
        ("25/1d", "Information", "rate limit is 25 calls per day."),
    ],
)
def test_alpha_vantage_says_each_limit_in_its_way(
    simulator: Simulator, limits: str, member: str, words: str
) -> None:
    simulator.change(rate_limit=limits)
    query = {"function": "GLOBAL_QUOTE", "apikey": KEY, "symbol": "IBM"}
    for _ in range(int(limits.partition("/")[0]) + 1):
        answer = requests.get(f"{simulator.url}/query", params=query, timeout=5).json()
    assert list(answer) == [member]
    assert answer[member].endswith(words)


def test_alpha_vantage_repeats_the_key_at_the_limit_of_a_day(simulator: Simulator) -> None:
    simulator.change(rate_limit="1/1d")
    adapter = get_provider("alpha_vantage")
    (request,) = adapter.plan(["IBM"])
    adapter.fetch(request)
    body = adapter.fetch(request).body.decode()
    assert f"detected your API key as {REDACTED}" in body


def test_stale_finnhub_tells_an_old_time_and_its_price(simulator: Simulator) -> None:
    simulator.change(stale_s=7200)
    quote = quote_of(ask("finnhub"))
    assert quote.observed_at
    assert timedelta(hours=2) <= now() - quote.observed_at < timedelta(hours=2, seconds=5)
    assert quote.price == Decimal(price_at("IBM", int(quote.observed_at.timestamp())))


def test_stale_alpha_vantage_tells_an_old_day(simulator: Simulator) -> None:
    simulator.change(stale_s=20 * 86_400)
    quote = quote_of(ask("alpha_vantage"))
    assert quote.observed_at
    assert timedelta(days=19) < now() - quote.observed_at < timedelta(days=24)


@both_providers
def test_faults_come_and_go_while_it_runs(simulator: Simulator, provider: str) -> None:
    for mode in (ErrorMode.BAD_GATEWAY, ErrorMode.RESET, ErrorMode.MALFORMED):
        quote_of(ask(provider))
        simulator.change(error_rate=1, error=mode.value)
        error_of(ask(provider))
        simulator.change(error_rate=0)
    simulator.change(outage=True)
    error_of(ask(provider))
    simulator.change(outage=False)
    quote_of(ask(provider))


def test_faults_of_one_provider_leave_the_other_alone(simulator: Simulator) -> None:
    simulator.change(provider="finnhub", outage=True)
    assert kind_of(ask("finnhub")) == ErrorKind.UPSTREAM_ERROR
    quote_of(ask("alpha_vantage"))


def test_share_of_the_requests_goes_wrong_in_every_way(simulator: Simulator, settings: Settings) -> None:
    settings.PROVIDER_TIMEOUT_S = 0.05
    simulator.change(error_rate=0.5, error="any")
    for _ in range(120):
        ask("finnhub")
    outcomes = [received.outcome for received in simulator.requests()]
    assert 30 < outcomes.count("quote") < 90
    assert set(outcomes) == {"quote", *ErrorMode} - {"any"}


@pytest.mark.parametrize(("days", "expected"), [(-1, -1), (0, 0), (1, 0), (2, 0), (3, 3)])
def test_trading_day_of_a_weekend_is_its_friday(simulator: Simulator, days: int, expected: int) -> None:
    """Days count from a Friday of the last two weeks."""
    today = now().astimezone(NEW_YORK).date()
    friday = today - timedelta(days=7 + (today.weekday() - FRIDAY) % 7)
    noon = datetime.combine(friday + timedelta(days=days), time(12), tzinfo=NEW_YORK)
    simulator.change(stale_s=int((now() - noon).total_seconds()))
    query = {"function": "GLOBAL_QUOTE", "apikey": KEY, "symbol": "IBM"}
    answer = requests.get(f"{simulator.url}/query", params=query, timeout=5).json()
    day = date.fromisoformat(answer["Global Quote"]["07. latest trading day"])
    assert day == friday + timedelta(days=expected)


@both_providers
def test_request_for_nothing_is_no_quote(simulator: Simulator, provider: str) -> None:
    paths = {
        "finnhub": ["/api/v1/quote?token=k", "/api/v1/quote?token=k&symbol="],
        "alpha_vantage": [
            "/query?apikey=k",
            "/query?apikey=k&function=GLOBAL_QUOTE",
            "/query?apikey=k&function=TIME_SERIES_DAILY&symbol=IBM",
            "/query?apikey=k&function=CURRENCY_EXCHANGE_RATE&from_currency=USD",
        ],
    }
    for path in paths[provider]:
        answer = requests.get(simulator.url + path, timeout=5)
        error_of(parse_one(provider, "IBM", answer.content, status=answer.status_code))
    assert {received.outcome for received in simulator.requests()} == {"bad_request"}
