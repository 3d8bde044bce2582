"""Fixtures of the tests that ask providers."""

import uuid
from collections.abc import Iterator

import pytest
import redis
from django.conf import settings as django_settings

from prices import fetching
from providers import shared_state


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry within moments."""
    monkeypatch.setattr(fetching, "RETRY_AFTER_S", 0.01)


@pytest.fixture(autouse=True)
def own_counts(monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    """Give each test budgets and breakers of its own in Redis."""
    prefix = f"test-{uuid.uuid4().hex}"
    monkeypatch.setattr(shared_state, "PREFIX", prefix)
    with redis.Redis.from_url(django_settings.REDIS_URL) as client:
        yield client
        for key in client.scan_iter(f"{prefix}:*"):
            client.delete(key)
