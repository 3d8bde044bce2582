"""Fixtures of the tests of providers: each has the default budgets, and counts of its own."""

import pytest
import redis


@pytest.fixture(autouse=True)
def _own_counts(own_counts: redis.Redis) -> None:
    """Count each test's requests for itself."""
