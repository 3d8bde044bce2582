"""A Finnhub of a test's own in Redis: an API key that nobody else has, and small limits."""

import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import redis
from django.conf import settings as django_settings
from pytest_django import Settings

from providers.base import ErrorKind, ProviderError, Quote, RawAnswer, Results
from providers.rate_limits.budget import SentTimes
from providers.rate_limits.permits import Caller, Granted, Refusal, Refused, report_outcome, request_permit
from providers.rate_limits.redis_scripts import keys_of
from tests.providers.hammering import no_history
from tests.waiting import wait_until

PROVIDER = "finnhub"


def use_own_scope(settings: Settings, budget: str, *, timeout_s: float = 0.2, **others: Any) -> str:
    """Let this test have counts of its own, with these limits; return the API key that they are under."""
    api_key = f"canary-{uuid.uuid4().hex}"
    settings.FINNHUB_API_KEY = api_key
    settings.PROVIDER_BUDGETS = {PROVIDER: budget, "simulated": "none"}
    settings.PROVIDER_TIMEOUT_S = timeout_s
    for name, value in others.items():
        setattr(settings, name, value)
    return api_key


def connect() -> redis.Redis:
    return redis.Redis.from_url(django_settings.REDIS_URL, decode_responses=True)


def lose_counts() -> None:
    with connect() as client:
        client.delete(*keys_of(PROVIDER))


def run_out(key: str) -> None:
    """Let the time of a key in Redis be over; it must have one."""
    with connect() as client:
        assert client.pttl(key) > 0
        client.pexpire(key, 1)


def history(*, job: Iterable[float] = (), latest: Iterable[float] = ()) -> Callable[[str, float], SentTimes]:
    """Return a history of requests so many seconds ago."""
    now = datetime.now(UTC)
    times = SentTimes(
        job=[now - timedelta(seconds=age) for age in job],
        latest=[now - timedelta(seconds=age) for age in latest],
    )
    return lambda provider, seconds: times


def ask(caller: Caller = "job", provider: str = PROVIDER) -> Granted | Refused:
    return request_permit(provider, caller=caller, load_history=no_history)


def granted(caller: Caller = "job") -> Granted:
    # A Redis that gets no time on a busy machine answers too late.
    permit = wait_until(lambda: _answered(ask(caller)), what="an answer of Redis")
    assert isinstance(permit, Granted), permit
    return permit


def _answered(permit: Granted | Refused) -> Granted | Refused | None:
    is_unavailable = isinstance(permit, Refused) and permit.refusal == Refusal.UNAVAILABLE
    return None if is_unavailable else permit


def refused(caller: Caller = "job") -> Refused:
    permit = ask(caller)
    assert isinstance(permit, Refused)
    return permit


def granted_soon(provider: str = PROVIDER, *, timeout_s: float = 60.0) -> Granted:
    def attempt() -> Granted | None:
        permit = ask(provider=provider)
        return permit if isinstance(permit, Granted) else None

    found = wait_until(attempt, timeout_s=timeout_s, what="a permit")
    assert found is not None
    return found


def quote() -> Results:
    return {"AAPL": Quote("AAPL", Decimal("150.25"), None, "unknown", None)}


def failure(kind: ErrorKind, *, retry_after: float | None = None) -> Results:
    return {"AAPL": ProviderError(kind=kind, message="a failure", retry_after=retry_after)}


def answer(headers: dict[str, str] | None = None, *, status: int = 200) -> RawAnswer:
    return RawAnswer(
        provider=PROVIDER,
        symbols=("AAPL",),
        url="https://finnhub.io/api/v1/quote?symbol=AAPL",
        status=status,
        headers=headers or {},
        body=b"{}",
        received_at=datetime.now(UTC),
        latency_ms=1.0,
    )


def send(results: Results | None = None, *, headers: dict[str, str] | None = None, status: int = 200) -> None:
    """Take a permit and report at once: a quote where nothing else is said."""
    replied = answer(headers, status=status)
    report_outcome(granted(), quote() if results is None else results, answer=replied)
