"""What no script wrote, in the keys of budgets, breakers and leases, is told once and taken as absent."""

from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from providers.base import ErrorKind
from providers.rate_limits.breaker import breaker_state
from providers.rate_limits.budget import remaining
from providers.rate_limits.permits import report_outcome
from providers.rate_limits.redis_scripts import key_base, keys_of
from providers.rate_limits.symbol_leases import Lease
from tests.logged import events_logged
from tests.providers.shared_scope import PROVIDER, answer, connect, failure, granted, quote, use_own_scope
from tests.waiting import wait_until

FIELDS = (
    "state",
    "retry_at",
    "waits",
    "times_opened",
    "failures",
    "since",
    "last_success",
    "last_error",
    "last_error_at",
    "probe",
    # No field of ours, but names that the answer has.
    "now",
    "wait",
)
GARBAGE: tuple[Any, ...] = ("", "garbage", "-1", "1.5", "nan", "inf", "9" * 30, "open closed", b"\xff\x00")
DELETED = "redis.garbage_deleted"


def ask_everything() -> None:
    """Use each script, once with a failure and once with a quote; none may raise, none may be refused."""
    breaker_state(PROVIDER)
    remaining(PROVIDER)
    for results in (failure(ErrorKind.UPSTREAM_ERROR), quote()):
        lease = Lease(PROVIDER)
        assert lease.take(["A"]).ours == ("A",)
        report_outcome(granted(), results, answer=answer())
        lease.release(["A"])


@pytest.mark.parametrize("value", GARBAGE)
def test_garbage_in_a_breaker_is_told_once_and_absent(
    settings: Settings, caplog: pytest.LogCaptureFixture, value: Any
) -> None:
    use_own_scope(settings, "60/1m")
    breaker = keys_of(PROVIDER)[4]
    with connect() as client:
        for field in FIELDS:
            client.delete(breaker)
            client.hset(breaker, field, value)
            caplog.clear()
            ask_everything()
            assert events_logged(caplog)[DELETED] == 1, field
            assert client.hget(breaker, "failures") == "0"


@pytest.mark.parametrize("field", ["retry_at", "waits"])
@pytest.mark.parametrize("value", ["garbage", "9" * 15])
def test_open_breaker_with_garbage_sends_a_probe(settings: Settings, field: str, value: str) -> None:
    use_own_scope(settings, "none", BREAKER_FAILURES=1, BREAKER_MAX_COOLDOWN_S=0.1)
    report_outcome(granted(), failure(ErrorKind.UPSTREAM_ERROR), answer=answer())
    with connect() as client:
        client.hset(keys_of(PROVIDER)[4], field, value)
    wait_until(lambda: breaker_state(PROVIDER).state == "half_open", timeout_s=5, what="a probe may go out")
    report_outcome(granted(), quote(), answer=answer())
    assert breaker_state(PROVIDER).state == "closed"


@pytest.mark.parametrize("value", GARBAGE)
def test_garbage_in_holds_and_unknown_symbols_is_told_once_and_absent(
    settings: Settings, caplog: pytest.LogCaptureFixture, value: Any
) -> None:
    use_own_scope(settings, "60/1m")
    base = key_base(PROVIDER)
    for name in ("hold", "settling", "unknown:A"):
        with connect() as client:
            client.set(f"{base}:{name}", value)
            client.delete(keys_of(PROVIDER)[0])
        ask_everything()
    assert events_logged(caplog)[DELETED] == 3


@pytest.mark.parametrize("score", ["inf", "-inf", "1e300", "-1.5"])
def test_requests_counted_for_no_time_are_none_that_can_be_told(settings: Settings, score: str) -> None:
    use_own_scope(settings, "60/1m")
    for name in ("sent", "latest"):
        with connect() as client:
            client.delete(*keys_of(PROVIDER))
            client.zadd(f"{key_base(PROVIDER)}:{name}", {"garbage": score})
        ask_everything()


@pytest.mark.django_db
def test_providers_are_told_with_garbage_in_redis(settings: Settings, client: Client) -> None:
    use_own_scope(settings, "60/1m")
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"alpha_vantage": "25/1d", "yfinance": "none"}
    sent, _latest, hold, settling, breaker, *_others = keys_of(PROVIDER)
    with connect() as redis:
        redis.hset(breaker, mapping=dict.fromkeys(FIELDS, "garbage"))
        redis.set(hold, "garbage")
        redis.set(settling, "garbage")
        redis.zadd(sent, {"garbage": "inf"})
    answered = client.get("/providers")
    assert answered.status_code == 200
    (ours,) = (found for found in answered.json()["results"] if found["provider"] == PROVIDER)
    assert (ours["breaker"], ours["failures"], ours["last_error"]) == ("closed", 0, None)
