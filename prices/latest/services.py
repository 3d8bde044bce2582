"""The freshest quote of a symbol: what is stored, else what is fetched, else what may stand in for it."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from django.conf import settings

from prices.clock import database_now
from prices.database.uuid7 import first_id_at
from prices.latest.errors import (
    FETCH_ERRORS,
    Failure,
    FetchError,
    LatestTimeoutError,
    NoPriceError,
    OldPriceError,
    TooManyFetchesError,
    TooOldError,
)
from prices.latest.fetch import fetch_price, single_flight
from prices.latest.stored import (
    COMPARED_WITHIN,
    known_time,
    last_points,
    newest_first,
    stand_in,
    stored_points,
)
from prices.models import PricePoint
from prices.symbols import is_simulated
from providers.base import NotConfiguredError
from providers.keys import SIMULATED
from providers.markets.freshness import age_seconds
from providers.registry import missing_setting

TooOld = Callable[[PricePoint], OldPriceError | None]


@dataclass(frozen=True, slots=True)
class Served:
    """A point, and the providers that gave none before it was found."""

    point: PricePoint
    failures: Sequence[Failure] = ()


def latest_price(symbol: str, provider: str | None, *, now: datetime, max_age_s: int | None = None) -> Served:
    """Return the freshest point of the symbol, by the named provider or by any.

    Those of PROVIDER_ORDER (or the named one) are asked in turn, once for all callers who wait for the
    same. A provider is not asked while a price of its own was received less than LATEST_REUSE_S ago: that
    is its answer. With `max_age_s` a price that is older by its own time is no answer: it is asked for
    anew, and the next provider is asked where it is still too old. Where no provider is named, the newest
    `observed_at` of all that is stored wins. Where no provider gives a price (but not because the symbol is
    unknown), a stored point that is fresh or delayed by its own time stands in.

    Raises NotConfiguredError, NoPriceError. All comes within LATEST_DEADLINE_S.
    """
    # Who takes no price over a certain age is not refused for one that could be fetched anew.
    reuse_s = settings.LATEST_REUSE_S if max_age_s is None else min(settings.LATEST_REUSE_S, max_age_s)
    too_old = None if max_age_s is None else partial(_too_old, provider=provider, max_age_s=max_age_s)
    names = _asked_in_turn(symbol, provider)
    configured = [name for name in names if missing_setting(name) is None]
    recent = _recent(last_points([symbol], now=now)[symbol], provider, configured, reuse_s=reuse_s, now=now)
    if recent is not None and not (configured and too_old and too_old(recent)):
        return Served(recent)
    if not configured:
        raise NotConfiguredError(provider=names[0], variable=str(missing_setting(names[0])))
    started = time.monotonic()
    chain = _FallbackChain(symbol, reuse_s=reuse_s, now=now, too_old=too_old)
    fetched, failures = chain.ask(configured)
    waited = timedelta(seconds=time.monotonic() - started)
    if fetched is None:
        return _instead(symbol, provider, failures, now=now + waited)
    return Served(_newest(fetched, provider, now=now), failures)


def refuse_older(served: Served, max_age_s: int | None, *, now: datetime) -> None:
    """Raise TooOldError where the price is older than so many seconds, or has no time of its own."""
    if max_age_s is not None and (error := _age_error(served.point, max_age_s=max_age_s, now=now)):
        raise TooOldError(error.age_s, served.failures)


def _newest(fetched: PricePoint, provider: str | None, *, now: datetime) -> PricePoint:
    """Return the fetched point, or a stored one of a later moment where no provider is named."""
    if provider is not None:
        return fetched
    stored = stored_points(fetched.symbol, None, received_after=now - COMPARED_WITHIN)
    return newest_first([fetched, *stored])[0]


def _too_old(fetched: PricePoint, *, provider: str | None, max_age_s: int) -> OldPriceError | None:
    now = database_now()
    return _age_error(_newest(fetched, provider, now=now), max_age_s=max_age_s, now=now)


def _age_error(point: PricePoint, *, max_age_s: int, now: datetime) -> OldPriceError | None:
    observed_at = known_time(point)
    if observed_at is None:
        return OldPriceError(None)
    age_s = age_seconds(observed_at, now=now)
    return OldPriceError(age_s) if age_s > max_age_s else None


def _recent(
    points: Sequence[PricePoint],
    provider: str | None,
    configured: Sequence[str],
    *,
    reuse_s: float,
    now: datetime,
) -> PricePoint | None:
    """Return what is served without asking anybody, where whoever would be asked first has just answered."""
    first = provider or next(iter(configured), None)
    after = now - timedelta(seconds=reuse_s)
    lately = [point for point in points if point.received_at > after and first in {None, point.provider}]
    if not lately:
        return None
    # Of the provider that is named, what it answered lately; of several, whatever is of the latest moment.
    return newest_first(lately if provider is not None else points)[0]


def _asked_in_turn(symbol: str, provider: str | None) -> Sequence[str]:
    if provider is not None:
        return [provider]
    order: list[str] = settings.PROVIDER_ORDER
    return [SIMULATED] if is_simulated(symbol) else order


def _instead(symbol: str, provider: str | None, failures: Sequence[Failure], *, now: datetime) -> Served:
    """Return a stored point in place of one that could not be fetched; raise why where there is none."""
    no_price = NoPriceError(failures, is_named=provider is not None)
    stored = None if no_price.cause.says_unknown else stand_in(symbol, provider, now=now)
    if stored is not None:
        return Served(stored, failures)
    raise no_price


class _FallbackChain:
    """Asks one provider after the other until one gives a price, with LATEST_DEADLINE_S for all of them.

    A provider that fails, is refused or is slow is followed by the next one; a slow one gets an even
    share of the time that is left. Its fetch goes on, so it may still win over those asked after it; it
    is stored whenever it comes.

    A price that came with a fetch of another caller, who took one that was stored over `reuse_s` before
    `now`, is asked for anew. A price that `too_old` has an error for is followed by the next provider, too;
    where none is better, the newest of them is returned.
    """

    def __init__(self, symbol: str, *, reuse_s: float, now: datetime, too_old: TooOld | None) -> None:
        self._symbol = symbol
        self._fetch = partial(fetch_price, reuse_s=reuse_s)
        self._deadline = time.monotonic() + settings.LATEST_DEADLINE_S
        self._first_id = first_id_at(now - timedelta(seconds=reuse_s))
        self._too_old = too_old
        self._old_points: list[PricePoint] = []
        self._open: dict[str, Future[PricePoint]] = {}
        self._failed: dict[str, FetchError] = {}

    def ask(self, providers: Sequence[str]) -> tuple[PricePoint | None, list[Failure]]:
        """Return the first price that comes, None where none comes in time, and who failed before it."""
        try:
            with single_flight().admit():
                return self._ask_in_turn(providers)
        except TooManyFetchesError as error:
            return None, [Failure(name, error) for name in providers]

    def _ask_in_turn(self, providers: Sequence[str]) -> tuple[PricePoint | None, list[Failure]]:
        point = None
        for index, name in enumerate(providers):
            self._start(name)
            share_s = (self._deadline - time.monotonic()) / (len(providers) - index)
            point = self._wait(name, deadline=time.monotonic() + share_s)
            if point is not None:
                break
        point = point or self._wait_for_slow()
        if point is None and self._old_points:
            newest = newest_first(self._old_points)[0]
            return newest, self._failures([name for name in providers if name != newest.provider], None)
        return point, self._failures(providers, point)

    def _start(self, name: str) -> None:
        try:
            self._open[name] = single_flight().join(name, self._symbol, self._fetch)
        except TooManyFetchesError as error:
            self._failed[name] = error

    def _wait(self, name: str, *, deadline: float) -> PricePoint | None:
        """Wait until this provider has failed, or any one that was asked gives a price."""
        while name in self._open:
            done = wait(self._open.values(), max(deadline - time.monotonic(), 0), FIRST_COMPLETED).done
            if not done:
                return None
            point = self._take(done)
            if point is not None:
                return point
        return None

    def _wait_for_slow(self) -> PricePoint | None:
        point = None
        for name in list(self._open):
            point = point or self._wait(name, deadline=self._deadline)
        return point

    def _take(self, done: set[Future[PricePoint]]) -> PricePoint | None:
        for name in [name for name, flight in self._open.items() if flight in done]:
            try:
                point = self._open.pop(name).result()
            except FETCH_ERRORS as error:
                self._failed[name] = error
                continue
            if point.id < self._first_id:
                self._start(name)
                continue
            error_of_age = self._too_old(point) if self._too_old else None
            if error_of_age is None:
                return point
            self._failed[name] = error_of_age
            self._old_points.append(point)
        return None

    def _failures(self, providers: Sequence[str], point: PricePoint | None) -> list[Failure]:
        """Return those of the providers asked before the one that served; still waited for is too slow."""
        before = list(providers)[: providers.index(point.provider)] if point else providers
        return [Failure(name, self._failed.get(name) or LatestTimeoutError(name)) for name in before]
