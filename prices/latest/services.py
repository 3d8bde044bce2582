"""The freshest quote of a symbol: what is stored, else what is fetched, else what may stand in for it."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from django.conf import settings

from prices.clock import database_now, recent_now
from prices.database.uuid7 import first_id_at
from prices.latest.errors import (
    FETCH_ERRORS,
    Failure,
    FetchError,
    LatestError,
    LatestTimeoutError,
    NoPriceError,
    NothingStoredError,
    OldPriceError,
    TooManyFetchesError,
    TooOldError,
)
from prices.latest.fetch import fetch_prices, groups_of
from prices.latest.single_flight import single_flight
from prices.latest.stored import (
    COMPARED_WITHIN,
    STANDS_IN_WITHIN,
    last_points,
    stand_in,
    stored_points,
)
from prices.models import PricePoint
from prices.models.price_point import newest_first
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


def latest_prices(
    symbols: Sequence[str],
    provider: str | None,
    *,
    now: datetime,
    max_age_s: int | None = None,
    may_fetch: bool = True,
) -> dict[str, Served | LatestError]:
    """Return the freshest point of each symbol, by the named provider or by any; or why there is none.

    Those of PROVIDER_ORDER (or the named one) are asked in turn, for all symbols together and once for all
    callers who wait for the same, all within LATEST_DEADLINE_S. A provider is not asked for a symbol while a
    price of its own was received less than LATEST_REUSE_S ago: that is its answer. With `max_age_s` a price
    that is older by its own time is no answer: it is asked for anew, and the next provider is asked where it
    is still too old. Where no provider is named, the newest `observed_at` of all that is stored wins. Where
    no provider gives a price (but not because the symbol is unknown), a stored point that is fresh or delayed
    by its own time stands in. Where nobody may be asked, it is the newest stored point of the last week.

    Either all symbols are simulated or none is.
    """
    found: dict[str, Served | LatestError]
    if may_fetch:
        found = _stored_or_fetched(symbols, provider, now=now, max_age_s=max_age_s)
    else:
        found = _stored(symbols, provider, now=now)
    if max_age_s is None:
        return found
    # What was young enough when it came may have waited for the others.
    now = recent_now()
    return {symbol: _not_too_old(served, max_age_s=max_age_s, now=now) for symbol, served in found.items()}


def _not_too_old(served: Served | LatestError, *, max_age_s: int, now: datetime) -> Served | LatestError:
    if isinstance(served, Exception):
        return served
    error = _age_error(served.point, max_age_s=max_age_s, now=now)
    return TooOldError(error.age_s, served.failures) if error else served


def _stored_or_fetched(
    symbols: Sequence[str], provider: str | None, *, now: datetime, max_age_s: int | None
) -> dict[str, Served | LatestError]:
    # Who takes no price over a certain age is not refused for one that could be fetched anew.
    reuse_s = settings.LATEST_REUSE_S if max_age_s is None else min(settings.LATEST_REUSE_S, max_age_s)
    too_old = None if max_age_s is None else partial(_too_old, provider=provider, max_age_s=max_age_s)
    names = _asked_in_turn(symbols[0], provider)
    configured = [name for name in names if missing_setting(name) is None]
    first, after = provider or next(iter(configured), None), now - timedelta(seconds=reuse_s)
    found: dict[str, Served | LatestError] = {}
    for symbol, points in last_points(symbols, now=now).items():
        recent = _recent(points, provider, first=first, after=after)
        if recent is not None and not (configured and too_old and too_old(recent)):
            found[symbol] = Served(recent)
    left = [symbol for symbol in symbols if symbol not in found]
    if left and not configured:
        error = NotConfiguredError(provider=names[0], variable=str(missing_setting(names[0])))
        found |= dict.fromkeys(left, error)
    elif left:
        found |= _fetch(left, provider, configured, reuse_s=reuse_s, now=now, too_old=too_old)
    return found


def _stored(
    symbols: Sequence[str], provider: str | None, *, now: datetime
) -> dict[str, Served | LatestError]:
    found: dict[str, Served | LatestError] = {}
    for symbol, points in last_points(symbols, now=now).items():
        of_provider = [point for point in points if provider in {None, point.provider}]
        # What is older than a day does not lie in Redis.
        older = of_provider or newest_first(
            stored_points(symbol, provider, received_after=now - STANDS_IN_WITHIN)
        )
        newest = next(iter(older), None)
        found[symbol] = NothingStoredError(symbol) if newest is None else Served(newest)
    return found


def _fetch(
    symbols: Sequence[str],
    provider: str | None,
    configured: Sequence[str],
    *,
    reuse_s: float,
    now: datetime,
    too_old: TooOld | None,
) -> dict[str, Served | LatestError]:
    started = time.monotonic()
    chain = _FallbackChain(symbols, reuse_s=reuse_s, now=now, too_old=too_old)
    fetched = chain.ask(configured)
    now += timedelta(seconds=time.monotonic() - started)
    found: dict[str, Served | LatestError] = {}
    for symbol in symbols:
        point, failures = fetched.get(symbol), chain.failures(symbol, configured)
        if point is None:
            found[symbol] = _instead(symbol, provider, failures, now=now)
        else:
            found[symbol] = Served(_newest(point, provider, now=now), failures)
    return found


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
    observed_at = point.known_time
    if observed_at is None:
        return OldPriceError(None)
    age_s = age_seconds(observed_at, now=now)
    return OldPriceError(age_s) if age_s > max_age_s else None


def _recent(
    points: Sequence[PricePoint], provider: str | None, *, first: str | None, after: datetime
) -> PricePoint | None:
    """Return what is served without asking anybody, where `first`, whom one would ask, answered `after` then.

    The points are the newest first.
    """
    for point in points:
        if point.received_at > after and first in {None, point.provider}:
            # Of the provider that is named, what it answered lately; of several, the latest moment's.
            return points[0] if provider is None else point
    return None


def _asked_in_turn(symbol: str, provider: str | None) -> Sequence[str]:
    if provider is not None:
        return [provider]
    order: list[str] = settings.PROVIDER_ORDER
    return [SIMULATED] if is_simulated(symbol) else order


def _instead(
    symbol: str, provider: str | None, failures: Sequence[Failure], *, now: datetime
) -> Served | NoPriceError:
    """Return a stored point in place of one that could not be fetched, or why there is none."""
    no_price = NoPriceError(failures, is_named=provider is not None)
    stored = None if no_price.cause.says_unknown else stand_in(symbol, provider, now=now)
    return no_price if stored is None else Served(stored, failures)


class _FallbackChain:
    """Asks one provider after the other until each symbol has a price, with LATEST_DEADLINE_S for all.

    A provider that fails, is refused or is slow is followed by the next one; a slow one gets an even
    share of the time that is left. Its fetch goes on, so it may still win over those asked after it; it
    is stored whenever it comes.

    A price that came with a fetch of another caller, who took one that was stored over `reuse_s` before
    `now`, is asked for anew. A price that `too_old` has an error for is followed by the next provider, too;
    where none is better, the newest of them is returned.
    """

    def __init__(
        self, symbols: Sequence[str], *, reuse_s: float, now: datetime, too_old: TooOld | None
    ) -> None:
        self._symbols = symbols
        self._fetch = partial(fetch_prices, reuse_s=reuse_s)
        self._deadline = time.monotonic() + settings.LATEST_DEADLINE_S
        self._first_id = first_id_at(now - timedelta(seconds=reuse_s))
        self._too_old = too_old
        self._found: dict[str, PricePoint] = {}
        self._old_points: dict[str, list[PricePoint]] = {}
        self._open: dict[tuple[str, str], Future[PricePoint]] = {}
        self._failed: dict[tuple[str, str], FetchError] = {}

    def ask(self, providers: Sequence[str]) -> dict[str, PricePoint]:
        """Return the first price of each symbol that comes; those that do not come in time are left out."""
        try:
            with single_flight().admit():
                self._ask_in_turn(providers)
        except TooManyFetchesError as error:
            self._failed |= {(name, symbol): error for name in providers for symbol in self._left}
        old = {symbol: newest_first(points)[0] for symbol, points in self._old_points.items()}
        return old | self._found

    def failures(self, symbol: str, providers: Sequence[str]) -> list[Failure]:
        """Return why there is no price of those who were asked before the one that gave it, or of all."""
        if symbol in self._found:
            providers = providers[: list(providers).index(self._found[symbol].provider)]
        elif symbol in self._old_points:
            newest = newest_first(self._old_points[symbol])[0]
            providers = [name for name in providers if name != newest.provider]
        return [
            Failure(name, self._failed.get((name, symbol)) or LatestTimeoutError(name)) for name in providers
        ]

    @property
    def _left(self) -> list[str]:
        return [symbol for symbol in self._symbols if symbol not in self._found]

    def _ask_in_turn(self, providers: Sequence[str]) -> None:
        for index, name in enumerate(providers):
            self._start(name, self._left)
            share_s = (self._deadline - time.monotonic()) / (len(providers) - index)
            self._wait([name], deadline=time.monotonic() + share_s)
            if not self._left:
                return
        self._wait(providers, deadline=self._deadline)

    def _start(self, name: str, symbols: Sequence[str]) -> None:
        flights = single_flight().join(name, groups_of(name, symbols), self._fetch)
        self._open |= {(name, symbol): flight for symbol, flight in flights.items()}

    def _wait(self, names: Sequence[str], *, deadline: float) -> None:
        """Wait until these providers have given or failed to give each price, or others have given it."""
        while any((name, symbol) in self._open for symbol in self._left for name in names):
            done = wait(self._open.values(), max(deadline - time.monotonic(), 0), FIRST_COMPLETED).done
            if not done:
                return
            self._take(done)

    def _take(self, done: set[Future[PricePoint]]) -> None:
        for name, symbol in [key for key, flight in self._open.items() if flight in done]:
            try:
                point = self._open.pop((name, symbol)).result()
            except FETCH_ERRORS as error:
                self._failed[name, symbol] = error
                continue
            if symbol in self._found:
                continue
            if point.id < self._first_id:
                self._start(name, [symbol])
                continue
            error_of_age = self._too_old(point) if self._too_old else None
            if error_of_age is None:
                self._found[symbol] = point
            else:
                self._failed[name, symbol] = error_of_age
                self._old_points.setdefault(symbol, []).append(point)
