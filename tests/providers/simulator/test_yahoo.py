"""The simulated Yahoo, asked by the real adapter with its default budget."""

from collections.abc import Iterator

import pytest
from pytest_django import Settings

from providers.adapters.yahoo import session as yahoo_session
from providers.base import ErrorKind, Quote, Request
from providers.registry import get_provider
from providers.simulator.simulator import Simulator
from tests.providers.answers import kind_of, quote_of
from tests.simulator import ask


@pytest.fixture(autouse=True)
def _fresh_session() -> Iterator[None]:
    yahoo_session.forget_clients()
    yield
    yahoo_session.forget_clients()


def outcomes(simulator: Simulator) -> list[str]:
    return [received.outcome for received in simulator.requests("yfinance")]


def test_list_is_answered_without_what_is_not_known(simulator: Simulator) -> None:
    adapter = get_provider("yfinance")
    symbols = ("AAPL", "UNKNOWN1", "BRK.B", "USD/JPY")
    results = adapter.parse(adapter.fetch(Request("quote", symbols)))
    assert [isinstance(result, Quote) for result in results.values()] == [True, False, True, True]
    assert kind_of(results["UNKNOWN1"]) == ErrorKind.UNKNOWN_SYMBOL
    assert outcomes(simulator) == ["cookie", "crumb", "quote"]


def test_chart_tells_price_currency_and_time(simulator: Simulator) -> None:
    quote = quote_of(ask("yfinance", "AAPL"))
    assert (quote.symbol, quote.currency, quote.precision) == ("AAPL", "USD", "second")
    assert kind_of(ask("yfinance", "UNKNOWN1")) == ErrorKind.UNKNOWN_SYMBOL
    assert outcomes(simulator) == ["cookie", "crumb", "quote", "unknown_symbol"]


def test_crumb_that_is_refused_costs_the_list_alone(simulator: Simulator) -> None:
    simulator.change(provider="yfinance", rate_limit="2/1m")
    adapter = get_provider("yfinance")
    answer = adapter.fetch(Request("quote", ("AAPL", "IBM")))
    assert (answer.status, outcomes(simulator)) == (429, ["cookie", "crumb", "rate_limited"])
    assert [request.call for request in adapter.fallback(answer)] == ["chart", "chart"]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"error_rate": 1, "error": "502"}, ErrorKind.UPSTREAM_ERROR),
        ({"error_rate": 1, "error": "malformed"}, ErrorKind.MALFORMED),
        ({"error_rate": 1, "error": "reset"}, ErrorKind.UPSTREAM_ERROR),
        ({"not_entitled": True}, ErrorKind.UPSTREAM_ERROR),
        ({"outage": True}, ErrorKind.UPSTREAM_ERROR),
        ({"rate_limit": "1/1m"}, ErrorKind.RATE_LIMITED),
    ],
)
def test_faults_are_those_of_the_others(
    simulator: Simulator, settings: Settings, fault: dict[str, object], kind: ErrorKind
) -> None:
    ask("yfinance", "AAPL")
    simulator.change(provider="yfinance", **fault)
    ask("yfinance", "AAPL")
    assert kind_of(ask("yfinance", "AAPL")) == kind
    assert isinstance(ask("finnhub", "AAPL"), Quote)


def test_root_of_another_host_is_the_simulators_own(simulator: Simulator) -> None:
    adapter = get_provider("finnhub")
    assert isinstance(adapter.parse(adapter.fetch(Request("quote", ("AAPL",))))["AAPL"], Quote)
    assert outcomes(simulator) == []
