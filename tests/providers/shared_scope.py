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
from providers.budget import SentTimes
from providers.permits import Caller, Granted, Refused, report_outcome, request_permit
from providers.shared_state import keys_of
from tests.providers.hammering import no_history
from tests.waiting import wait_until

PROVIDER = "finnhub"


def use_own_scope(settings: Settings, budget: str, *, timeout_s: float = 0.2, **others: Any) -> str:
    """Give this test counts of its own, with these limits; give the API key that they are under."""
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


def history(*, job: Iterable[float] = (), latest: Iterable[float] = ()) -> Callable[[str, float], SentTimes]:
    """Give a history of requests so many seconds ago."""
    now = datetime.now(UTC)
    times = SentTimes(
        job=[now - timedelta(seconds=age) for age in job],
        latest=[now - timedelta(seconds=age) for age in latest],
    )
    return lambda provider, seconds: times


def ask(caller: Caller = "job") -> Granted | Refused:
    return request_permit(PROVIDER, caller=caller, load_history=no_history)


def granted(caller: Caller = "job") -> Granted:
    permit = ask(caller)
    assert isinstance(permit, Granted), permit
    return permit


def refused(caller: Caller = "job") -> Refused:
    permit = ask(caller)
    assert isinstance(permit, Refused)
    return permit


def granted_soon(*, timeout_s: float = 5.0) -> Granted:
    def attempt() -> Granted | None:
        permit = ask()
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
