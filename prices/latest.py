"""The freshest quote of a symbol: what is stored, else what is fetched, else what may stand in for it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from django.conf import settings

from prices.fallback import ask_in_turn
from prices.fetch_price import fetch_price
from prices.freshness import age_seconds
from prices.jobs import SIMULATED
from prices.latest_errors import (
    Failure,
    NoPriceError,
    TooOldError,
)
from prices.models import PricePoint
from prices.stored import known_time, newest_first, stand_in, stored_points, stored_price
from prices.symbols import is_simulated
from providers.base import NotConfiguredError
from providers.registry import missing_setting

COMPARED_WITHIN = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Served:
    """A point, and the providers that gave none before it was found."""

    point: PricePoint
    failures: Sequence[Failure] = ()


def latest_price(symbol: str, provider: str | None, *, now: datetime, max_age_s: int | None = None) -> Served:
    """Give the freshest point of the symbol, by the named provider or by any.

    A stored one is reused while one was received less than LATEST_REUSE_S ago (or `max_age_s`, if that is
    less: who takes no older price is not refused for one that could be fetched anew). Else the provider is
    asked, once for all callers who wait for the same. Where none is named those of PROVIDER_ORDER are asked
    in turn, and the newest `observed_at` wins. Where the fetch fails (but not because the symbol is unknown),
    a stored point that is fresh or delayed by its own time stands in.

    Raises NotConfiguredError, NoPriceError. All comes within LATEST_DEADLINE_S.
    """
    reuse_s = settings.LATEST_REUSE_S if max_age_s is None else min(settings.LATEST_REUSE_S, max_age_s)
    reused = _reusable(symbol, provider, received_after=now - timedelta(seconds=reuse_s), now=now)
    if reused is not None:
        return Served(reused)
    candidates = _candidates(symbol, provider)
    started = time.monotonic()
    fetch = partial(fetch_price, reuse_s=reuse_s)
    fetched, failures = ask_in_turn(symbol, candidates, fetch=fetch, within_s=settings.LATEST_DEADLINE_S)
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
    observed_at = known_time(served.point)
    if observed_at is None:
        raise TooOldError(None, served.failures)
    age_s = age_seconds(observed_at, now=now)
    if age_s > max_age_s:
        raise TooOldError(age_s, served.failures)


def _reusable(
    symbol: str, provider: str | None, *, received_after: datetime, now: datetime
) -> PricePoint | None:
    if provider is not None:
        return stored_price(symbol, provider, received_after=received_after)
    # Of several providers' prices the one received last need not be the one of the latest moment.
    points = newest_first(stored_points(symbol, None, received_after=now - COMPARED_WITHIN))
    return points[0] if any(point.received_at > received_after for point in points) else None


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
    no_price = NoPriceError(failures, is_named=provider is not None)
    stored = None if no_price.telling.says_unknown else stand_in(symbol, provider, now=now)
    if stored is not None:
        return Served(stored, failures)
    raise no_price
