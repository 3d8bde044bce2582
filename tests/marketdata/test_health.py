from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from marketdata import health
from prices.topic import ensure_topic

ALL_WELL = dict.fromkeys(["postgresql", "migrations", "redis", "kafka"], "ok")
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def forget_clients() -> None:
    health.forget_clients()


def ask(client: Client) -> tuple[int, dict[str, Any]]:
    answer = client.get("/readyz")
    return answer.status_code, answer.json()


@pytest.mark.parametrize("path", ["/livez", "/livez/"])
def test_livez_asks_nobody(client: Client, settings: Settings, path: str) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1"
    assert client.get(path).json() == {"status": "alive"}


def test_readyz_with_all_parts_is_ready(client: Client, topic: str) -> None:
    assert ask(client) == (200, {"status": "ready", "parts": ALL_WELL})


def test_readyz_without_redis_is_degraded(client: Client, topic: str, settings: Settings) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1"
    status, body = ask(client)
    assert (status, body["status"]) == (200, "degraded")
    assert body["parts"] == ALL_WELL | {"redis": "cannot be reached"}


def test_readyz_without_kafka_is_degraded(client: Client, settings: Settings) -> None:
    settings.KAFKA_BOOTSTRAP_SERVERS = "127.0.0.1:1"
    status, body = ask(client)
    assert (status, body["status"]) == (200, "degraded")
    assert body["parts"]["kafka"] in {"cannot be reached", "no answer within 2 s"}


def test_readyz_without_topic_says_how_to_make_it(client: Client, settings: Settings) -> None:
    settings.KAFKA_TOPIC = "no-such-topic"
    assert ask(client)[1]["parts"]["kafka"] == "there is no topic no-such-topic: run manage.py ensure_topic"


def test_readyz_without_migrations_is_unavailable(
    client: Client, topic: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db.migrations.recorder import MigrationRecorder

    newest = MigrationRecorder.Migration.objects.filter(app="prices").latest("name").name
    recorder = MigrationRecorder.Migration.objects.filter(app="prices", name=newest)
    (row,) = recorder.values()
    recorder.delete()
    try:
        status, body = ask(client)
    finally:
        MigrationRecorder.Migration.objects.create(**row)
    assert (status, body["status"]) == (503, "unavailable")
    assert body["parts"]["migrations"] == "1 not applied: run manage.py prepare"


def test_readyz_without_postgresql_is_unavailable(client: Client, topic: str, settings: Settings) -> None:
    parts = [health.PartHealth("postgresql", "cannot be reached"), health.PartHealth("redis", None)]
    assert not health.is_ready(parts)


def test_ensure_topic_twice_makes_it_once(topic: str) -> None:
    assert ensure_topic() is False
