"""Fixtures of the tests that ask providers."""

from collections.abc import Iterator

import pytest
import redis
from pytest_django import Settings
from pytest_httpserver import HTTPServer

from prices.fetching import requests as fetching
from providers.rate_limits import breaker
from tests.prices.two_providers import TwoProviders, two_providers, two_servers


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry within moments, and wait for no provider that does not work."""
    monkeypatch.setattr(fetching, "RETRY_AFTER_S", 0.01)
    monkeypatch.setattr(fetching, "WAIT_FOR_PROBE_S", 0.0)


@pytest.fixture(autouse=True)
def long_deadline(settings: Settings) -> None:
    """Leave GET latest the time that a busy machine takes; a test of the deadline sets its own."""
    settings.LATEST_DEADLINE_S = 60


@pytest.fixture
def long_cooldown(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a breaker open for the whole test."""
    monkeypatch.setattr(breaker, "FIRST_COOLDOWN_S", 3600)
    settings.BREAKER_MAX_COOLDOWN_S = 3600


@pytest.fixture(autouse=True)
def _own_counts(own_counts: redis.Redis) -> None:
    """Count each test's requests for itself."""


@pytest.fixture(scope="session")
def servers() -> Iterator[dict[str, HTTPServer]]:
    """Yield local servers in place of Finnhub and Alpha Vantage; one takes a second to end."""
    with two_servers() as running:
        yield running


@pytest.fixture
def providers(servers: dict[str, HTTPServer], settings: Settings, topic: str) -> Iterator[TwoProviders]:
    """Yield Finnhub and Alpha Vantage, asked in this order."""
    with two_providers(servers, settings) as found:
        yield found
