import threading
import time
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from marketdata import __version__, health
from prices.publishing.kafka_clients import make_admin
from prices.publishing.topic import ensure_topic
from providers.rate_limits.redis_scripts import key_base
from tests.redis_troubles import admin_of, full, own_user, refusing, wrong_type

ALL_WELL = dict.fromkeys(
    ["postgresql", "migrations", "partitions", "redis", "kafka", "stream", "processes", "clocks"], "ok"
)
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("partitions")]


@pytest.fixture(autouse=True)
def forget_clients() -> None:
    health.forget_clients()


def ask(client: Client) -> tuple[int, dict[str, Any]]:
    answer = client.get("/readyz")
    return answer.status_code, answer.json()


@pytest.mark.parametrize("path", ["/livez", "/livez/"])
def test_livez_asks_nobody(client: Client, settings: Settings, path: str) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1"
    assert client.get(path).json() == {"status": "alive", "version": __version__}


def test_readyz_with_all_parts_is_ready(client: Client, topic: str) -> None:
    assert ask(client) == (200, {"status": "ready", "parts": ALL_WELL})


def test_readyz_without_redis_is_degraded(client: Client, topic: str, settings: Settings) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1"
    status, body = ask(client)
    assert (status, body["status"]) == (200, "degraded")
    assert body["parts"] == ALL_WELL | {"redis": "cannot be reached"}


def test_readyz_is_degraded_while_redis_refuses_a_command(
    client: Client, topic: str, settings: Settings
) -> None:
    with admin_of(settings.REDIS_URL) as admin, own_user(admin) as user:
        settings.REDIS_URL = settings.REDIS_URL.replace("redis://", f"redis://{user}")
        assert ask(client)[1]["parts"] == ALL_WELL
        for name in ("lpush", "brpop", "ping", "llen", "lrange", "lrem", "evalsha", "script|load", "zadd"):
            with refusing(name)(admin):
                status, body = ask(client)
            assert (status, body["status"]) == (200, "degraded")
            assert f"has no permissions to run the '{name}' command" in body["parts"]["redis"]
        assert ask(client)[1]["parts"] == ALL_WELL


def test_readyz_is_degraded_while_redis_takes_no_writes(
    client: Client, topic: str, settings: Settings
) -> None:
    with admin_of(settings.REDIS_URL) as admin, full(admin):
        text = ask(client)[1]["parts"]["redis"]
    assert text == "answers: OOM command not allowed when used memory > 'maxmemory'"


def test_readyz_names_a_queue_that_is_no_list(client: Client, topic: str, settings: Settings) -> None:
    with admin_of(settings.REDIS_URL) as admin, wrong_type("poll.finnhub")(admin):
        text = ask(client)[1]["parts"]["redis"]
    assert text == "answers: WRONGTYPE Operation against a key holding the wrong kind of value"


@pytest.mark.parametrize("name", ["sent", "latest", "breaker"])
def test_readyz_names_budgets_of_another_type(
    client: Client, topic: str, settings: Settings, name: str
) -> None:
    key = f"{key_base('finnhub')}:{name}"
    with admin_of(settings.REDIS_URL) as admin, wrong_type(key)(admin):
        text = ask(client)[1]["parts"]["redis"]
    assert text == "answers: WRONGTYPE Operation against a key holding the wrong kind of value"


def test_readyz_without_kafka_is_degraded(client: Client, settings: Settings) -> None:
    settings.KAFKA_BOOTSTRAP_SERVERS = "127.0.0.1:1"
    status, body = ask(client)
    assert (status, body["status"]) == (200, "degraded")
    assert body["parts"]["kafka"] in {"cannot be reached", "no answer within 2 s"}


def test_readyz_without_topic_says_how_to_make_it(client: Client, settings: Settings) -> None:
    settings.KAFKA_TOPIC = "no-such-topic"
    assert ask(client)[1]["parts"]["kafka"] == "there is no topic no-such-topic: run manage.py ensure_topic"


def test_readyz_gives_kafkas_word_on_a_topic(client: Client, settings: Settings) -> None:
    settings.KAFKA_TOPIC = "no name"
    text = ask(client)[1]["parts"]["kafka"]
    assert text == "answers for topic no name: Broker: Invalid topic"


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
    assert ensure_topic(make_admin()) is False


def test_parts_that_hang_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    hanging = ("redis", "kafka", "processes", "clocks")
    for name in hanging:
        monkeypatch.setitem(health.PARTS, name, released.wait)
    began = time.monotonic()
    problems = {part.name: part.problem for part in health.check_parts()}
    took_s = time.monotonic() - began
    released.set()
    assert [problems[name] for name in hanging] == ["no answer within 2 s"] * 4
    # One after the other it would be four times as long.
    assert took_s < 3 * health.PART_TIMEOUT_S
