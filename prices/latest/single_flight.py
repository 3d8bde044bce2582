"""Fetches under way for callers of GET /prices/latest, and how many wait for them.

Two limits of the same size, LATEST_MAX_FETCHES, and one for each provider:

callers    so many threads of the server wait at once, whatever they wait for; the rest of the threads
           go on answering what is stored
fetches    so many run at once from one provider, each in a thread of its own. A fetch goes on after its
           callers have left, so a provider that hangs uses up its own fetches, and nobody else's
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import structlog
from django.conf import settings
from django.db import connection

from prices.latest.errors import FETCH_ERRORS, TooManyFetchesError
from prices.models import PricePoint

log = structlog.get_logger(__name__)

_T = TypeVar("_T")


class SingleFlight:
    """Fetches under way: one for each provider and symbol, however many wait for it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._admitted = threading.BoundedSemaphore(limit)
        self._lock = threading.Lock()
        self._under_way: dict[tuple[str, str], Future[PricePoint]] = {}
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._afterwards = ThreadPoolExecutor(limit, thread_name_prefix="latest-afterwards")

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Count as one of the callers who wait. Raises TooManyFetchesError where as many wait as may."""
        if not self._admitted.acquire(blocking=False):
            raise TooManyFetchesError("as many callers as may wait for a fetch are waiting")
        try:
            yield
        finally:
            self._admitted.release()

    def join(self, provider: str, symbol: str, fetch: Callable[[str, str], PricePoint]) -> Future[PricePoint]:
        """Return the fetch of the symbol that is under way, or start `fetch(provider, symbol)`; never waits.

        Raises TooManyFetchesError where as many fetches from the provider run as may.
        """
        key = (provider, symbol)
        with self._lock:
            # One that has landed is no longer here in a moment; what it found may be old for this caller.
            if key in self._under_way and not self._under_way[key].done():
                return self._under_way[key]
            if Counter(name for name, _ in self._under_way)[provider] >= self._limit:
                raise TooManyFetchesError("as many fetches as may run at once are running")
            work = partial(fetch, provider, symbol)
            flight = self._pool_of(provider).submit(_with_connection, work)
            self._under_way[key] = flight
        flight.add_done_callback(lambda landed: self._land(key, landed))
        return flight

    def afterwards(self, work: Callable[[], object]) -> None:
        """Do what no caller waits for, in threads that no fetch needs."""
        self._afterwards.submit(_with_connection, work)

    @property
    def under_way(self) -> int:
        """The number of fetches that run."""
        return len(self._under_way)

    def close(self) -> None:
        """Wait for what runs, and take no more."""
        # In this order: a fetch that ends may leave something to do afterwards.
        for pool in (*self._pools.values(), self._afterwards):
            pool.shutdown()

    def _pool_of(self, provider: str) -> ThreadPoolExecutor:
        if provider not in self._pools:
            self._pools[provider] = ThreadPoolExecutor(self._limit, thread_name_prefix=f"latest-{provider}")
        return self._pools[provider]

    def _land(self, key: tuple[str, str], landed: Future[PricePoint]) -> None:
        with self._lock:
            if self._under_way.get(key) is landed:
                del self._under_way[key]


def _with_connection(work: Callable[[], _T]) -> _T:
    try:
        return work()
    except FETCH_ERRORS:
        raise
    except Exception:
        # Whoever waited may have left: it would be lost in silence.
        log.exception("latest.failed")
        raise
    finally:
        # Outside a request nobody else ends this thread's connection.
        connection.close()


_single_flight: SingleFlight | None = None
_single_flight_lock = threading.Lock()


def single_flight() -> SingleFlight:
    """Return this process's fetches for callers."""
    global _single_flight
    with _single_flight_lock:
        if _single_flight is None:
            _single_flight = SingleFlight(settings.LATEST_MAX_FETCHES)
        return _single_flight


def forget_single_flight() -> None:
    """End this process's fetches; the next use begins anew with the settings as they are then.

    For tests: in a process that serves, settings do not change.
    """
    global _single_flight
    if _single_flight is not None:
        _single_flight.close()
        _single_flight = None
