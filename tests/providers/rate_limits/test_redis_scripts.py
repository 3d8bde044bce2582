import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
import redis
from django.conf import settings as django_settings
from pytest_django import Settings

from dev.pytest_services import Services
from providers.base import ErrorKind
from providers.rate_limits.breaker import breaker_state
from providers.rate_limits.budget import remaining
from providers.rate_limits.permits import (
    Granted,
    Refusal,
    count_another,
    give_back,
    give_probe_back,
    report_end,
    report_outcome,
    wait_for_several,
)
from providers.rate_limits.redis_scripts import SharedStateError, call_script, keys_of
from providers.rate_limits.symbol_leases import Lease
from providers.redis_probe import PROBE_LUA
from tests.providers.shared_scope import (
    PROVIDER,
    answer,
    ask,
    connect,
    failure,
    granted,
    granted_soon,
    quote,
    refused,
    send,
    use_own_scope,
)
from tests.redis_troubles import USER, own_user, refusing

AWAY = "budget unavailable: Redis cannot be reached"
NOREPLICAS = "NOREPLICAS Not enough good replicas to write"


def refusal_in_time() -> str:
    began = time.monotonic()
    found = refused()
    # Far less than a worker could be kept by a connection that hangs.
    assert time.monotonic() - began < 10
    assert found.refusal == Refusal.UNAVAILABLE
    return found.reason


def test_redis_stopped_refuses_within_a_second(settings: Settings, services: Services) -> None:
    use_own_scope(settings, "60/1m")
    permit = granted()
    services.valkey.stop()
    try:
        assert refusal_in_time() == AWAY
        report_outcome(permit, quote(), answer=answer())
    finally:
        services.valkey.start()
    granted_soon()


def test_redis_hanging_refuses_within_a_second(settings: Settings, services: Services) -> None:
    use_own_scope(settings, "60/1m")
    granted()
    os.kill(services.valkey.pid, signal.SIGSTOP)
    try:
        assert refusal_in_time() == AWAY
        settings.REDIS_URL += "?client_name=new"
        assert refusal_in_time() == AWAY
    finally:
        os.kill(services.valkey.pid, signal.SIGCONT)
    granted_soon()


def test_redis_nowhere_refuses_within_a_second(settings: Settings) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    assert refusal_in_time() == AWAY


def test_redis_that_takes_no_writes_refuses_and_says_so(settings: Settings) -> None:
    use_own_scope(settings, "60/1m")
    with connect() as client:
        client.config_set("min-replicas-to-write", 1)
        try:
            assert refusal_in_time() == f"budget unavailable: Redis answers: {NOREPLICAS}"
        finally:
            client.config_set("min-replicas-to-write", 0)
    granted()


def test_redis_that_wants_a_password_refuses_and_says_so(settings: Settings) -> None:
    use_own_scope(settings, "60/1m")
    with connect() as client:
        client.config_set("requirepass", "only-for-tests")
        try:
            # A client of its own, whose connections come too late for no password.
            settings.REDIS_URL += f"?client_name={uuid4().hex}"
            assert refusal_in_time().startswith("budget unavailable: Redis answers: NOAUTH ")
        finally:
            client.config_set("requirepass", "")
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
        call_script("return nil + 1", PROVIDER, {})


def ask_everything() -> None:
    """Use each script once."""
    permit = ask()
    if isinstance(permit, Granted):
        count_another(permit, "entry")
        report_end(permit, "entry")
        give_back(permit, "entry")
        give_probe_back(permit)
        wait_for_several(permit, 2)
        report_outcome(permit, quote(), answer=answer())
    lease = Lease(PROVIDER)
    for question in (lambda: lease.take(["A"]), lambda: remaining(PROVIDER), lambda: breaker_state(PROVIDER)):
        with suppress(SharedStateError):
            question()
    lease.release(["A"], unknown=["A"])


def test_commands_refused_in_turn_refuse_and_raise_nothing(settings: Settings) -> None:
    use_own_scope(settings, "60/1m")
    ask_everything()
    with connect() as admin, own_user(admin) as user:
        settings.REDIS_URL = settings.REDIS_URL.replace("redis://", f"redis://{user}")
        # A new user's connections find no script known, and load each.
        admin.script_flush()
        for name in sorted(commands_of_scripts() | {"EVALSHA"}):
            with refusing(name)(admin):
                ask_everything()
        with refusing("zadd")(admin):
            assert refused().reason == (
                f"budget unavailable: Redis answers: ACL failure in script: User {USER} has no permissions"
                " to run the 'zadd' command"
            )
    settings.REDIS_URL = django_settings.REDIS_URL


def test_probe_calls_all_that_scripts_call() -> None:
    assert commands_in(PROBE_LUA) >= commands_of_scripts()


def test_wrong_kind_of_value_refuses_and_says_so(settings: Settings) -> None:
    use_own_scope(settings, "60/1m")
    sent = keys_of(PROVIDER)[0]
    with connect() as client:
        client.set(sent, "no log")
        assert "answers: WRONGTYPE" in refusal_in_time()
        client.delete(sent)
    granted()


def commands_of_scripts() -> set[str]:
    sources = (Path(django_settings.BASE_DIR) / "providers").glob("*.py")
    return set().union(*(commands_in(path.read_text()) for path in sources))


def commands_in(text: str) -> set[str]:
    return set(re.findall(r"redis\.call\('([A-Z]+)'", text))


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
