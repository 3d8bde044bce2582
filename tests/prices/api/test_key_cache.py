"""Keys that the web server keeps: none is taken that opens nothing any more."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta

import pytest
import redis
from django.conf import settings as django_settings
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings
from rest_framework.test import APIClient

from prices.access import generation, key_cache
from prices.access.keys import NewKey, create_key, find_key, revoke_key
from prices.api.access import authentication
from prices.clock import database_now
from prices.models import ApiKey, Scope
from tests.logged import events_logged
from tests.product import database_url

pytestmark = pytest.mark.django_db
AWAY = "redis://127.0.0.1:1/0"


@pytest.fixture(autouse=True)
def _with_keys(settings: Settings) -> None:
    settings.API_AUTH = "keys"


@pytest.fixture
def made(api: APIClient) -> NewKey:
    """Return a key that was used, and so is kept."""
    key = create_key("team", [Scope.READ], expires_at=None)
    assert status(api, key) == 200
    return key


@pytest.fixture
def server() -> Iterator[redis.Redis]:
    """Yield the Redis that all processes share."""
    with redis.Redis.from_url(django_settings.REDIS_URL) as client:
        yield client


def status(api: APIClient, key: NewKey) -> int:
    return int(api.get("/providers", headers={"X-API-Key": key.text}).status_code)


def reads(api: APIClient, key: NewKey) -> int:
    """Return how often a call reads the table of keys."""
    with CaptureQueriesContext(connection) as queries:
        assert status(api, key) == 200
    return sum("FROM api_keys" in query["sql"] for query in queries)


def test_kept_key_is_not_read_again(api: APIClient, made: NewKey) -> None:
    assert [reads(api, made), reads(api, made)] == [0, 0]


def test_key_that_another_process_revokes_opens_nothing(api: APIClient, made: NewKey) -> None:
    """As `manage.py api_key revoke` does it: nothing but the generation tells this process."""
    ApiKey.objects.update(revoked_at=database_now())
    assert status(api, made) == 200
    generation.end_generation()
    assert status(api, made) == 401


def test_key_that_is_revoked_while_it_is_read_is_not_kept(
    api: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = create_key("team", [Scope.READ], expires_at=None)

    def find_and_lose(text: str) -> object:
        read = find_key(text)
        revoke_key(key.row.prefix)
        return read

    monkeypatch.setattr(authentication, "find_key", find_and_lose)
    # The call that was under way when it was revoked.
    status(api, key)
    monkeypatch.setattr(authentication, "find_key", find_key)
    assert status(api, key) == 401


def test_key_that_expires_while_it_is_kept_opens_nothing(
    api: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = database_now() + timedelta(hours=1)
    key = create_key("team", [Scope.READ], expires_at=end)
    assert status(api, key) == 200
    ApiKey.objects.update(expires_at=database_now())
    assert status(api, key) == 200
    monkeypatch.setattr(authentication, "recent_now", lambda: end)
    assert status(api, key) == 401


def test_redis_that_forgot_the_generation_has_keys_read_again(
    api: APIClient, made: NewKey, server: redis.Redis
) -> None:
    server.delete(generation.generation_key())
    assert [reads(api, made), reads(api, made)] == [1, 0]


@pytest.mark.parametrize("wrong", ["", None])
def test_generation_that_nobody_here_wrote_begins_anew(
    api: APIClient, made: NewKey, server: redis.Redis, wrong: str | None
) -> None:
    server.delete(generation.generation_key())
    if wrong is None:
        server.rpush(generation.generation_key(), "no text")
    else:
        server.set(generation.generation_key(), wrong)
    assert [reads(api, made), reads(api, made)] == [1, 0]


def test_without_redis_every_call_reads_the_table(api: APIClient, made: NewKey, settings: Settings) -> None:
    settings.REDIS_URL = AWAY
    with CaptureQueriesContext(connection) as queries:
        api.get("/averages", headers={"X-API-Key": made.text})
    assert sum("FROM api_keys" in query["sql"] for query in queries) == 1
    ApiKey.objects.update(revoked_at=database_now())
    assert api.get("/averages", headers={"X-API-Key": made.text}).status_code == 401


def test_revocation_that_redis_was_not_told_of_holds_after_a_while(
    api: APIClient,
    made: NewKey,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = settings.REDIS_URL
    settings.REDIS_URL = AWAY
    revoke_key(made.row.prefix)
    assert events_logged(caplog)["api_keys.generation_not_ended"] == 1
    settings.REDIS_URL = address
    assert status(api, made) == 200
    monkeypatch.setattr(key_cache, "KEPT_S", 0.0)
    assert status(api, made) == 401


@pytest.mark.django_db(transaction=True)
def test_command_revokes_at_once(api: APIClient, made: NewKey) -> None:
    subprocess.run(
        [sys.executable, "manage.py", "api_key", "revoke", made.row.prefix],
        cwd=django_settings.BASE_DIR,
        env=os.environ | {"DATABASE_URL": database_url()},
        check=True,
    )
    assert status(api, made) == 401


def test_memory_of_keys_has_an_end(api: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_cache, "_MOST_KEPT", 2)
    for _ in range(5):
        assert status(api, create_key("team", [Scope.READ], expires_at=None)) == 200
    assert len(key_cache._kept) <= 2
