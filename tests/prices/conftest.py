"""Fixtures of the tests that ask providers."""

import uuid
from collections.abc import Iterator

import pytest
import redis
from django.conf import settings as django_settings
from pytest_django import Settings
from pytest_httpserver import HTTPServer

from prices import fetching
from providers import shared_state
from tests.prices.two_providers import TwoProviders, two_providers, two_servers


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry within moments, and wait for no provider that does not work."""
    monkeypatch.setattr(fetching, "RETRY_AFTER_S", 0.01)
    monkeypatch.setattr(fetching, "WAIT_FOR_PROBE_S", 0.0)


@pytest.fixture(autouse=True)
def own_counts(monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    """Give each test budgets and breakers of its own in Redis."""
    prefix = f"test-{uuid.uuid4().hex}"
    monkeypatch.setattr(shared_state, "PREFIX", prefix)
    with redis.Redis.from_url(django_settings.REDIS_URL) as client:
        yield client
        for key in client.scan_iter(f"{prefix}:*"):
            client.delete(key)


@pytest.fixture(scope="session")
def servers() -> Iterator[dict[str, HTTPServer]]:
    """Give local servers in place of Finnhub and Alpha Vantage; one takes a second to end."""
    with two_servers() as running:
        yield running


@pytest.fixture
def providers(servers: dict[str, HTTPServer], settings: Settings, topic: str) -> Iterator[TwoProviders]:
    """Give Finnhub and Alpha Vantage, asked in this order."""
    with two_providers(servers, settings) as found:
        yield found
