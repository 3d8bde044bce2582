"""Fixtures that every test may use. The real parts come from dev.pytest_services."""

import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TypeAlias

import pytest
from confluent_kafka.admin import AdminClient
from django.conf import settings as django_settings
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from prices import outbox
from prices.jobs import create_job
from prices.models import PollJob
from prices.quota import forget_allowances
from prices.topic import ensure_topic

pytest_plugins = ["tests.simulator"]

MakeJob: TypeAlias = Callable[..., PollJob]
ChangeJob: TypeAlias = Callable[[uuid.UUID], PollJob]


@pytest.fixture(autouse=True)
def fast_passwords(settings: Settings) -> None:
    """Hash passwords fast: the real hasher takes half a second on purpose."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(autouse=True)
def own_allowances() -> None:
    """Let each test share budgets among its own jobs."""
    forget_allowances()


@pytest.fixture
def api() -> APIClient:
    """Give a client of the REST interface that raises what a view leaves unhandled."""
    return APIClient()


@pytest.fixture
def make_job(db: None) -> MakeJob:
    """Give a function that creates a job; a simulated symbol each second where nothing else is said."""

    def make(
        symbols: list[str] | None = None, *, interval: int = 1, provider: str | None = "simulated"
    ) -> PollJob:
        # Test modules take the time of their polls when they are imported, which may be minutes before.
        before = timezone.now() - timedelta(hours=1)
        return create_job(symbols=symbols or ["SIM-A"], interval=interval, provider=provider, now=before)

    return make


@pytest.fixture
def topic(settings: Settings) -> Iterator[str]:
    """Give a topic and a consumer group of this test's own, made in the real Kafka."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    settings.KAFKA_TOPIC = name
    settings.KAFKA_CONSUMER_GROUP = name
    settings.KAFKA_PARTITIONS = 3
    ensure_topic()
    outbox.forget_publisher()
    yield name
    outbox.forget_publisher()
    admin = AdminClient({"bootstrap.servers": django_settings.KAFKA_BOOTSTRAP_SERVERS})
    admin.delete_topics([name])[name].result(10)
