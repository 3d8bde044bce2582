"""Where no provider is named they are asked in turn; where one is, it alone."""

import time
from datetime import UTC, datetime

import pytest
from pytest_django import Settings
from werkzeug import Request, Response

from prices.latest.errors import LatestTimeoutError, NoPriceError
from prices.latest.services import Served
from prices.latest.single_flight import single_flight
from prices.models import PricePoint
from providers.base import NotConfiguredError
from tests.prices.one_price import latest_price
from tests.prices.two_providers import TwoProviders, alpha_vantage_quote, finnhub_quote
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
UNKNOWN = '{"c":0,"d":null,"dp":null,"h":0,"l":0,"o":0,"pc":0,"t":0}'
# What Finnhub answers, and what that is.
FAILURES = [
    (UNKNOWN, 200, "unknown_symbol"),
    ('{"error":"API limit reached."}', 429, "rate_limited"),
    ('{"error":"Invalid API key."}', 401, "invalid_key"),
    ('{"error":"You don\'t have access to this resource."}', 403, "not_entitled"),
    ("down", 503, "upstream_error"),
    ('{"c":"x"}', 200, "malformed"),
]


def ask(symbol: str = "AAPL", provider: str | None = None) -> Served:
    return latest_price(symbol, provider, now=datetime.now(UTC))


def failed(served: Served) -> list[tuple[str, str]]:
    return [(failure.provider, failure.kind) for failure in served.failures]


def failed_all(symbol: str = "AAPL") -> NoPriceError:
    with pytest.raises(NoPriceError) as caught:
        ask(symbol)
    return caught.value


@pytest.mark.parametrize(("body", "status", "kind"), FAILURES)
def test_provider_that_fails_is_followed_by_the_next(
    providers: TwoProviders, body: str, status: int, kind: str
) -> None:
    providers.answer("finnhub", body, status=status)
    providers.answer("alpha_vantage", alpha_vantage_quote())
    served = ask()
    assert (served.point.provider, str(served.point.price)) == ("alpha_vantage", "99.5")
    assert failed(served) == [("finnhub", kind)]


@pytest.mark.parametrize(("body", "status", "kind"), FAILURES[:2])
def test_named_provider_that_fails_is_followed_by_nobody(
    providers: TwoProviders, body: str, status: int, kind: str
) -> None:
    providers.answer("finnhub", body, status=status)
    providers.answer("alpha_vantage", alpha_vantage_quote())
    with pytest.raises(NoPriceError, match=f"finnhub: {kind}"):
        ask(provider="finnhub")
    assert providers.requests("alpha_vantage") == 0


def test_first_provider_that_serves_is_the_only_one_asked(providers: TwoProviders) -> None:
    providers.answer("finnhub", finnhub_quote())
    served = ask()
    assert (served.point.provider, failed(served)) == ("finnhub", [])
    assert providers.requests("alpha_vantage") == 0


def test_provider_without_budget_is_followed_by_the_next(providers: TwoProviders, settings: Settings) -> None:
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"finnhub": "4/1d"}
    providers.answer("alpha_vantage", alpha_vantage_quote())
    assert failed(ask()) == [("finnhub", "latest_share")]
    assert providers.requests("finnhub") == 0


@pytest.mark.usefixtures("long_cooldown")
def test_provider_with_open_breaker_is_followed_by_the_next(
    providers: TwoProviders, settings: Settings
) -> None:
    settings.BREAKER_FAILURES = 1
    settings.LATEST_REUSE_S = 0
    providers.answer("finnhub", "down", status=503)
    providers.answer("alpha_vantage", alpha_vantage_quote())
    assert [failed(ask()) for _ in range(2)] == [[("finnhub", "upstream_error")], [("finnhub", "broken")]]
    assert providers.requests("finnhub") == 1


def test_provider_without_key_is_left_out(providers: TwoProviders, settings: Settings) -> None:
    settings.FINNHUB_API_KEY = ""
    providers.answer("alpha_vantage", alpha_vantage_quote())
    served = ask()
    assert (served.point.provider, failed(served)) == ("alpha_vantage", [])


def test_no_provider_with_a_key_names_the_variable_of_the_first(
    providers: TwoProviders, settings: Settings
) -> None:
    settings.FINNHUB_API_KEY = settings.ALPHA_VANTAGE_API_KEY = ""
    with pytest.raises(NotConfiguredError, match="FINNHUB_API_KEY"):
        ask()


def test_simulated_symbol_is_asked_of_nobody_else(providers: TwoProviders) -> None:
    assert ask("SIM-A").point.provider == "simulated"
    assert (providers.requests("finnhub"), providers.requests("alpha_vantage")) == (0, 0)


def test_all_that_fail_are_told_in_their_order(providers: TwoProviders) -> None:
    providers.answer("finnhub", UNKNOWN)
    providers.answer("alpha_vantage", "down", status=503)
    error = failed_all()
    assert [(failure.provider, failure.kind) for failure in error.failures] == [
        ("finnhub", "unknown_symbol"),
        ("alpha_vantage", "upstream_error"),
    ]
    assert error.cause.kind == "upstream_error"


def test_provider_that_hangs_gets_its_share_and_its_late_answer_is_stored(
    providers: TwoProviders, settings: Settings
) -> None:
    settings.LATEST_DEADLINE_S = 12
    providers.hang("finnhub", then=finnhub_quote("55.5"))
    providers.answer("alpha_vantage", alpha_vantage_quote())
    started = time.monotonic()
    served = ask()
    assert (served.point.provider, failed(served)) == ("alpha_vantage", [("finnhub", "timeout")])
    assert 6 <= time.monotonic() - started < 12
    providers.release.set()
    wait_until(lambda: PricePoint.objects.filter(provider="finnhub", price="55.5").exists())


def test_all_that_hang_are_given_up_at_the_deadline(providers: TwoProviders, settings: Settings) -> None:
    settings.LATEST_DEADLINE_S = 1
    providers.hang("finnhub")
    providers.hang("alpha_vantage")
    started = time.monotonic()
    error = failed_all()
    assert 1 <= time.monotonic() - started < 20
    assert [failure.kind for failure in error.failures] == ["timeout", "timeout"]
    assert isinstance(error.cause.error, LatestTimeoutError)


def test_slow_provider_still_serves_while_the_next_one_is_waited_for(
    providers: TwoProviders, settings: Settings
) -> None:
    settings.LATEST_DEADLINE_S = 30
    started = time.monotonic()

    def wake_the_first(_request: Request) -> Response:
        providers.release.set()
        providers.ended.wait(10)
        return Response(status=503)

    providers.hang("finnhub", then=finnhub_quote("55.5"))
    providers.handle("alpha_vantage", wake_the_first)
    served = ask()
    # As soon as it comes, and not when the time is over.
    assert time.monotonic() - started < 20
    assert (served.point.provider, str(served.point.price), failed(served)) == ("finnhub", "55.5", [])


def test_slow_provider_still_serves_after_the_last_one_has_failed(
    providers: TwoProviders, settings: Settings
) -> None:
    # The second is asked after half of it.
    settings.LATEST_DEADLINE_S = 10
    settings.PROVIDER_TIMEOUT_S = 30

    def answer_last(_request: Request) -> Response:
        wait_until(lambda: providers.requests("alpha_vantage") and single_flight().under_way == 1)
        return Response(finnhub_quote("55.5"))

    providers.handle("finnhub", answer_last)
    providers.answer("alpha_vantage", "down", status=503)
    served = ask()
    assert (served.point.provider, str(served.point.price), failed(served)) == ("finnhub", "55.5", [])


def test_provider_that_hangs_for_many_symbols_keeps_nobody_from_the_next(
    providers: TwoProviders, settings: Settings
) -> None:
    settings.LATEST_MAX_FETCHES = 2
    settings.LATEST_DEADLINE_S = 1
    providers.hang("finnhub")
    providers.answer("alpha_vantage", '{"Global Quote": {}}')
    kinds = [failed_all(f"S{number}").failures[0].kind for number in range(6)]
    assert kinds == ["timeout"] * 2 + ["too_many_fetches"] * 4
    assert providers.requests("alpha_vantage") == 6
    wait_until(lambda: single_flight().under_way == 2)


def test_callers_over_the_limit_ask_nobody(providers: TwoProviders, settings: Settings) -> None:
    settings.LATEST_MAX_FETCHES = 1
    with single_flight().admit():
        error = failed_all()
        with pytest.raises(NoPriceError, match="finnhub: too_many_fetches"):
            ask(provider="finnhub")
    assert [failure.kind for failure in error.failures] == ["too_many_fetches"] * 2
    assert providers.requests("finnhub") == 0
