import os
import signal
import time

import pytest
import redis
from pytest_django import Settings

from dev.pytest_services import Services
from providers.base import ErrorKind
from providers.permits import Refusal, report_outcome
from providers.shared_state import SharedStateError, call_script, keys_of
from tests.providers.shared_scope import (
    PROVIDER,
    answer,
    connect,
    failure,
    granted,
    granted_soon,
    quote,
    refused,
    send,
    use_own_scope,
)

AWAY = "budget unavailable: Redis cannot be reached"


def refusal_within_a_second() -> str:
    began = time.monotonic()
    found = refused()
    assert time.monotonic() - began < 1
    assert found.refusal == Refusal.UNAVAILABLE
    return found.reason


def test_redis_stopped_refuses_within_a_second(settings: Settings, services: Services) -> None:
    use_own_scope(settings, "60/1m")
    permit = granted()
    services.valkey.stop()
    try:
        assert refusal_within_a_second() == AWAY
        report_outcome(permit, quote(), answer=answer())
    finally:
        services.valkey.start()
    granted_soon()


def test_redis_hanging_refuses_within_a_second(settings: Settings, services: Services) -> None:
    use_own_scope(settings, "60/1m")
    granted()
    os.kill(services.valkey.pid, signal.SIGSTOP)
    try:
        assert refusal_within_a_second() == AWAY
        settings.REDIS_URL += "?client_name=new"
        assert refusal_within_a_second() == AWAY
    finally:
        os.kill(services.valkey.pid, signal.SIGCONT)
    granted_soon()


def test_redis_nowhere_refuses_within_a_second(settings: Settings) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    assert refusal_within_a_second() == AWAY


def test_redis_that_takes_no_writes_refuses_and_says_so(settings: Settings) -> None:
    use_own_scope(settings, "60/1m")
    with connect() as client:
        client.config_set("min-replicas-to-write", 1)
        try:
            assert refusal_within_a_second() == "budget unavailable: Redis takes no writes"
        finally:
            client.config_set("min-replicas-to-write", 0)
    granted()


def test_redis_without_memory_goes_on_counting(settings: Settings) -> None:
    use_own_scope(settings, "3/1m")
    with connect() as client:
        client.config_set("maxmemory", 1)
        try:
            for _ in range(3):
                send()
            assert refused().refusal == Refusal.BUDGET
        finally:
            client.config_set("maxmemory", 0)


def test_redis_restarted_needs_no_second_attempt(settings: Settings, services: Services) -> None:
    use_own_scope(settings, "60/1m", timeout_s=0.1)
    send()
    services.valkey.stop()
    services.valkey.start()
    with connect() as client:  # the first write waits for the disk, on a loaded machine for seconds
        client.set("restarted", 1)
    granted()


def test_a_fault_in_a_script_stays_loud() -> None:
    with pytest.raises(redis.ResponseError):
        call_script("return redis.call('NONSENSE')", PROVIDER, {})


def test_state_without_redis_raises(settings: Settings) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    with pytest.raises(SharedStateError, match="Redis cannot be reached"):
        call_script("return '1'", PROVIDER, {})


def test_keys_differ_by_api_key_and_never_hold_it(settings: Settings) -> None:
    first = use_own_scope(settings, "60/1m")
    first_keys = keys_of(PROVIDER)
    second = use_own_scope(settings, "60/1m")
    assert not set(first_keys) & set(keys_of(PROVIDER))
    assert not any(key in name for name in first_keys + keys_of(PROVIDER) for key in (first, second))


def test_api_key_is_nowhere_in_redis(settings: Settings) -> None:
    api_key = use_own_scope(settings, "10/1s,60/1d")
    send()
    granted("latest")
    send(failure(ErrorKind.INVALID_KEY), headers={"x-ratelimit-remaining": "3"})
    with connect() as client:
        names = set(client.scan_iter("*"))
        held = names & set(keys_of(PROVIDER))
        assert len(held) >= 3
        contents = [client.hgetall(n) if n.endswith("breaker") else client.zrange(n, 0, -1) for n in held]
    assert api_key not in f"{names} {contents}"
