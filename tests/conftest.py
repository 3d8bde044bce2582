"""Fixtures that every test may use. The real parts come from dev.pytest_services."""

import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TypeAlias

import pytest
import redis
from django.conf import settings as django_settings
from django.test import TransactionTestCase
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from prices.api.access import throttle
from prices.clock import database_now
from prices.fetching import last_points
from prices.jobs.services import create_job
from prices.maintenance.partitions import make_partitions
from prices.models import PollJob
from prices.publishing.kafka_clients import make_admin
from prices.publishing.publisher import forget_publisher
from prices.publishing.topic import ensure_topic
from prices.quota import forget_allowances
from providers.rate_limits import redis_scripts as shared_state
from tests.emptying import empty_tables

# tests.examples sets how property tests run, tests.order_of_tests which come first.
pytest_plugins = ["tests.examples", "tests.order_of_tests", "tests.simulator"]
# In place of `flush`, after each test that commits.
TransactionTestCase._fixture_teardown = lambda self: empty_tables()  # type: ignore[attr-defined]  # not public

# The real hasher takes half a second on purpose.
django_settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
# Each client of a test would read the 170 static files anew, for 60 ms: they are looked for when asked for.
django_settings.WHITENOISE_AUTOREFRESH = True

MakeJob: TypeAlias = Callable[..., PollJob]
ChangeJob: TypeAlias = Callable[[uuid.UUID], PollJob]


@pytest.fixture(autouse=True)
def own_allowances() -> None:
    """Let each test share budgets among its own jobs."""
    forget_allowances()


@pytest.fixture(autouse=True)
def own_last_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test keep last points of its own in Redis."""
    monkeypatch.setattr(last_points, "PREFIX", f"test-{uuid.uuid4().hex}:last")


@pytest.fixture(autouse=True)
def own_requests(monkeypatch: pytest.MonkeyPatch) -> str:
    """Let each test count its own requests in Redis; return what their keys begin with."""
    prefix = f"test-{uuid.uuid4().hex}:requests"
    monkeypatch.setattr(throttle, "PREFIX", prefix)
    return prefix


@pytest.fixture
def own_counts(monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    """Let a test have budgets and breakers of its own in Redis."""
    prefix = f"test-{uuid.uuid4().hex}"
    monkeypatch.setattr(shared_state, "PREFIX", prefix)
    with redis.Redis.from_url(django_settings.REDIS_URL) as client:
        yield client
        for key in client.scan_iter(f"{prefix}:*"):
            client.delete(key)


@pytest.fixture
def api() -> APIClient:
    """Return a client of the REST interface that raises what a view leaves unhandled."""
    return APIClient()


@pytest.fixture
def make_job(db: None) -> MakeJob:
    """Return a function that creates a job; a simulated symbol each second where nothing else is said."""

    def make(
        symbols: list[str] | None = None,
        *,
        interval: int = 1,
        provider: str | None = "simulated",
        market_hours: bool = False,
    ) -> PollJob:
        # Test modules take the time of their polls when they are imported, which may be minutes before.
        before = timezone.now() - timedelta(hours=1)
        return create_job(
            symbols=symbols or ["SIM-A"],
            interval=interval,
            provider=provider,
            market_hours=market_hours,
            now=before,
        )

    return make


@pytest.fixture
def partitions(transactional_db: None) -> None:
    """Make the partitions of the coming days, which stay."""
    make_partitions(database_now().date())


@pytest.fixture
def topic(settings: Settings) -> Iterator[str]:
    """Yield a topic and a consumer group of this test's own, made in the real Kafka."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    settings.KAFKA_TOPIC = name
    settings.KAFKA_CONSUMER_GROUP = name
    settings.KAFKA_PARTITIONS = 3
    ensure_topic(make_admin())
    forget_publisher()
    yield name
    forget_publisher()
    admin = make_admin()
    admin.delete_topics([name])[name].result(10)
