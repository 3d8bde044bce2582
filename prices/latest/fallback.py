"""Asking one provider after the other until one gives a price, with one deadline for all of them."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from datetime import datetime

from prices.database.uuid7 import first_id_at
from prices.latest.errors import (
    FETCH_ERRORS,
    Failure,
    FetchError,
    LatestTimeoutError,
    OldPriceError,
    TooManyFetchesError,
)
from prices.latest.single_flight import SingleFlight, single_flight
from prices.latest.stored import newest_first
from prices.models import PricePoint

Fetch = Callable[[str, str], PricePoint]
TooOld = Callable[[PricePoint], OldPriceError | None]


def ask_in_turn(
    symbol: str,
    providers: Sequence[str],
    *,
    fetch: Fetch,
    within_s: float,
    stored_after: datetime,
    too_old: TooOld | None = None,
) -> tuple[PricePoint | None, list[Failure]]:
    """Return the first price that comes, None where none comes within so many seconds, and who failed.

    A price that came with a fetch of another caller, who took one that was stored before `stored_after`, is
    asked for anew. A price that `too_old` has an error for is followed by the next provider, too; where none
    is better, the newest of them is returned.

    A provider that fails, is refused or is slow is followed by the next one; a slow one gets an even
    share of the time that is left. Its fetch goes on, so it may still win over those asked after it; it
    is stored whenever it comes. The failures are those of the providers before the one that served.
    """
    try:
        with single_flight().admit():
            deadline = time.monotonic() + within_s
            chain = _FallbackChain(
                single_flight(), symbol, fetch, deadline=deadline, stored_after=stored_after, too_old=too_old
            )
            return chain.ask(providers)
    except TooManyFetchesError as error:
        return None, [Failure(name, error) for name in providers]


class _FallbackChain:
    """What one caller waits for, and what has failed so far."""

    def __init__(
        self,
        shared: SingleFlight,
        symbol: str,
        fetch: Fetch,
        *,
        deadline: float,
        stored_after: datetime,
        too_old: TooOld | None,
    ) -> None:
        self._shared = shared
        self._symbol = symbol
        self._fetch = fetch
        self._deadline = deadline
        self._first_id = first_id_at(stored_after)
        self._too_old = too_old
        self._old_points: list[PricePoint] = []
        self._open: dict[str, Future[PricePoint]] = {}
        self._failed: dict[str, FetchError] = {}

    def ask(self, providers: Sequence[str]) -> tuple[PricePoint | None, list[Failure]]:
        point = None
        for index, name in enumerate(providers):
            self._start(name)
            share_s = (self._deadline - time.monotonic()) / (len(providers) - index)
            point = self._wait(name, until=time.monotonic() + share_s)
            if point is not None:
                break
        point = point or self._wait_for_slow()
        if point is None and self._old_points:
            newest = newest_first(self._old_points)[0]
            return newest, self._failures([name for name in providers if name != newest.provider], None)
        return point, self._failures(providers, point)

    def _start(self, name: str) -> None:
        try:
            self._open[name] = self._shared.join(name, self._symbol, self._fetch)
        except TooManyFetchesError as error:
            self._failed[name] = error

    def _wait(self, name: str, *, until: float) -> PricePoint | None:
        """Wait until this provider has failed, or any one that was asked gives a price."""
        while name in self._open:
            done = wait(self._open.values(), max(until - time.monotonic(), 0), FIRST_COMPLETED).done
            if not done:
                return None
            point = self._take(done)
            if point is not None:
                return point
        return None

    def _wait_for_slow(self) -> PricePoint | None:
        point = None
        for name in list(self._open):
            point = point or self._wait(name, until=self._deadline)
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
