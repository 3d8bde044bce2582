"""The freshest quote of a symbol: what is stored, else what is fetched, else what may stand in for it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction

from prices.fallback import ask_in_turn
from prices.fetching import Asked, ask_provider
from prices.flights import flights
from prices.freshness import age_seconds
from prices.ids import new_ids
from prices.ingest import Stored, store_attempts
from prices.jobs import SIMULATED
from prices.latest_errors import (
    Failure,
    LatestTimeoutError,
    NoPriceError,
    RequestRefusedError,
    TooOldError,
)
from prices.models import PricePoint
from prices.outbox import publisher
from prices.patience import patiently
from prices.stored import newest_first, stand_in, stored_points, stored_price
from prices.symbols import is_simulated
from providers.base import NotConfiguredError, malformed
from providers.registry import get_provider, missing_setting

COMPARED_WITHIN = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Served:
    """A point, and the providers that gave none before it was found."""

    point: PricePoint
    failures: Sequence[Failure] = ()


def latest_price(symbol: str, provider: str | None, *, now: datetime) -> Served:
    """Give the freshest point of the symbol, by the named provider or by any.

    A stored one is reused while one was received less than LATEST_REUSE_S ago; else the provider is
    asked, once for all callers who wait for the same. Where none is named those of PROVIDER_ORDER are
    asked in turn, and the newest `observed_at` wins. Where the fetch fails (but not because the symbol is
    unknown), a stored point that is fresh or delayed by its own time stands in.

    Raises NotConfiguredError; of a named provider what it failed with (a FetchError); else NoPriceError.
    All comes within LATEST_DEADLINE_S.
    """
    reused = _reusable(symbol, provider, now=now)
    if reused is not None:
        return Served(reused)
    candidates = _candidates(symbol, provider)
    started = time.monotonic()
    fetched, failures = ask_in_turn(
        symbol, candidates, fetch=fetch_price, within_s=settings.LATEST_DEADLINE_S
    )
    if fetched is None:
        waited = timedelta(seconds=time.monotonic() - started)
        return _instead(symbol, provider, failures, now=now + waited)
    if provider is not None:
        return Served(fetched)
    stored = stored_points(symbol, None, received_after=now - COMPARED_WITHIN)
    return Served(newest_first([fetched, *stored])[0], failures)


def refuse_older(served: Served, max_age_s: int | None, *, now: datetime) -> None:
    """Raise TooOldError where the price is older than so many seconds, or has no time of its own."""
    if max_age_s is None:
        return
    observed_at = served.point.observed_at
    if observed_at is None:
        raise TooOldError(None, served.failures)
    age_s = age_seconds(observed_at, now=now)
    if age_s > max_age_s:
        raise TooOldError(age_s, served.failures)


def _reusable(symbol: str, provider: str | None, *, now: datetime) -> PricePoint | None:
    reused_after = now - timedelta(seconds=settings.LATEST_REUSE_S)
    if provider is not None:
        return stored_price(symbol, provider, received_after=reused_after)
    # Of several providers' prices the one received last need not be the one of the latest moment.
    points = newest_first(stored_points(symbol, None, received_after=now - COMPARED_WITHIN))
    return points[0] if any(point.received_at > reused_after for point in points) else None


def _candidates(symbol: str, provider: str | None) -> list[str]:
    """Give who is asked, in order: those that are configured. Raises NotConfiguredError where none is."""
    if provider is not None:
        names = [provider]
    else:
        names = [SIMULATED] if is_simulated(symbol) else settings.PROVIDER_ORDER
    missing = {name: missing_setting(name) for name in names}
    configured = [name for name, variable in missing.items() if variable is None]
    if not configured:
        name, variable = next(iter(missing.items()))
        raise NotConfiguredError(provider=name, variable=str(variable))
    return configured


def _instead(symbol: str, provider: str | None, failures: Sequence[Failure], *, now: datetime) -> Served:
    """Give a stored point in place of one that could not be fetched; raise why where there is none."""
    no_price = NoPriceError(failures)
    stored = None if no_price.telling.says_unknown else stand_in(symbol, provider, now=now)
    if stored is not None:
        return Served(stored, failures)
    raise no_price if provider is None else no_price.telling.error


def fetch_price(provider: str, symbol: str) -> PricePoint:
    """Ask the provider for one symbol, store what it answered and have the point published.

    Raises ProviderError where it gave no quote (its answer is stored all the same),
    RequestRefusedError or LatestTimeoutError where it was not asked.
    """
    deadline = time.monotonic() + settings.LATEST_DEADLINE_S
    asked = ask_provider(
        get_provider(provider), [symbol], caller="latest", may_ask=lambda: time.monotonic() < deadline
    )
    if symbol not in asked.results:
        # Refused, or its turn did not come: others were faster at each moment of the provider's pace.
        raise RequestRefusedError(asked.refused) if asked.refused else LatestTimeoutError(provider)
    raw_ids = patiently(lambda: new_ids(len(asked.attempts)))
    stored: Stored = patiently(lambda: _store(asked, raw_ids, provider))
    if stored.points:
        # Nobody waits for Kafka to read a price that is stored.
        flights().afterwards(lambda: publisher().publish(stored.points, polls={}))
        return stored.points[0]
    raise asked.errors.get(symbol) or malformed("the database cannot hold this price")


@transaction.atomic
def _store(asked: Asked, raw_ids: Sequence[UUID], provider: str) -> Stored:
    return store_attempts(asked.attempts, raw_ids=raw_ids, provider=provider, poll=None)
