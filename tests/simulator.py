"""A simulated Finnhub, Alpha Vantage and Yahoo for a test, and the settings that point at it."""

from collections.abc import Iterator

import pytest
from pytest_django import Settings

from providers.base import ProviderError, Quote
from providers.registry import get_provider
from providers.simulator.simulator import Simulator

KEY = "CANARY-key-simulated"


def pointing_at(simulator: Simulator) -> dict[str, str]:
    """Return the variables with which the service asks the simulator; `Product` takes them."""
    return {
        "FINNHUB_BASE_URL": simulator.url,
        "FINNHUB_API_KEY": KEY,
        "ALPHA_VANTAGE_BASE_URL": simulator.url,
        "ALPHA_VANTAGE_API_KEY": KEY,
        "YAHOO_BASE_URL": simulator.url,
    }


@pytest.fixture
def simulator(settings: Settings) -> Iterator[Simulator]:
    """Yield a simulator that runs; this test's providers are there."""
    with Simulator() as running:
        for name, value in pointing_at(running).items():
            setattr(settings, name, value)
        yield running


def ask(provider: str, symbol: str = "IBM") -> Quote | ProviderError:
    """Return what the provider's adapter makes of one request, as a poll would send it."""
    adapter = get_provider(provider)
    (request,) = adapter.plan([symbol])
    try:
        answer = adapter.fetch(request)
    except ProviderError as error:
        return error
    return adapter.parse(answer)[symbol]
