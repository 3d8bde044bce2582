"""Fetches for callers who wait: one request for all who want the same.

Two limits of the same size, LATEST_MAX_FETCHES, and one for each provider:

callers    so many threads of the server wait at once, whatever they wait for; the rest of the threads
           go on answering what is stored
fetches    so many run at once from one provider, each in a thread of its own. A fetch goes on after its
           callers have left, so a provider that hangs uses up its own fetches, and nobody else's
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context

import structlog
from django.conf import settings
from django.db import connection

from prices.latest.errors import FETCH_ERRORS, LatestTimeoutError, TooManyFetchesError
from prices.models import PricePoint

log = structlog.get_logger(__name__)

# Takes a symbol and what came of it, as soon as that is known.
Land = Callable[[str, PricePoint | Exception], None]
# Asks a provider for symbols, and lands each.
Fetch = Callable[[str, Sequence[str], Land], None]


class SingleFlight:
    """Fetches under way: one for each provider and symbol, however many wait for it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._admitted = threading.BoundedSemaphore(limit)
        self._lock = threading.Lock()
        self._under_way: dict[tuple[str, str], Future[PricePoint]] = {}
        self._running = Counter[str]()
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

    def join(
        self, provider: str, groups: Sequence[Sequence[str]], fetch: Fetch
    ) -> Mapping[str, Future[PricePoint]]:
        """Return the fetch of each symbol: one that is under way, else a new one of its group; never waits.

        Where as many fetches from the provider run as may, those of the groups that are left have failed with
        TooManyFetchesError.
        """
        flights: dict[str, Future[PricePoint]] = {}
        for group in groups:
            with self._lock:
                for symbol in group:
                    # One that has landed is no longer here in a moment; what it found may be old for this
                    # caller.
                    flight = self._under_way.get((provider, symbol))
                    if flight is not None and not flight.done():
                        flights[symbol] = flight
                new = {symbol: Future[PricePoint]() for symbol in group if symbol not in flights}
                if new:
                    self._start(provider, new, fetch)
                flights |= new
        return flights

    def afterwards(self, work: Callable[[], object]) -> None:
        """Do what no caller waits for, in threads that no fetch needs."""
        self._afterwards.submit(copy_context().run, _with_connection, work)

    @property
    def under_way(self) -> int:
        """The number of fetches that run."""
        return self._running.total()

    def close(self) -> None:
        """Wait for what runs, and take no more."""
        # In this order: a fetch that ends may leave something to do afterwards.
        for pool in (*self._pools.values(), self._afterwards):
            pool.shutdown()

    def _start(self, provider: str, flights: Mapping[str, Future[PricePoint]], fetch: Fetch) -> None:
        if self._running[provider] >= self._limit:
            error = TooManyFetchesError("as many fetches as may run at once are running")
            for flight in flights.values():
                flight.set_exception(error)
            return
        self._running[provider] += 1
        self._under_way |= {(provider, symbol): flight for symbol, flight in flights.items()}
        # In the context of the caller who begins it: what is logged tells that one's request.
        run = copy_context().run
        self._pool_of(provider).submit(run, _with_connection, lambda: self._run(provider, flights, fetch))

    def _run(self, provider: str, flights: Mapping[str, Future[PricePoint]], fetch: Fetch) -> None:
        def land(symbol: str, found: PricePoint | Exception) -> None:
            if flights[symbol].done():
                return
            if isinstance(found, Exception):
                flights[symbol].set_exception(found)
            else:
                flights[symbol].set_result(found)

        ended: Exception = LatestTimeoutError(provider)
        try:
            fetch(provider, list(flights), land)
        except Exception as error:
            ended = error
            # Whoever waited may have left: it would be lost in silence.
            if not isinstance(error, FETCH_ERRORS):
                log.exception("latest.failed")
        finally:
            with self._lock:
                self._running[provider] -= 1
                for symbol, flight in flights.items():
                    if self._under_way.get((provider, symbol)) is flight:
                        del self._under_way[provider, symbol]
            for symbol in flights:
                land(symbol, ended)

    def _pool_of(self, provider: str) -> ThreadPoolExecutor:
        if provider not in self._pools:
            self._pools[provider] = ThreadPoolExecutor(self._limit, thread_name_prefix=f"latest-{provider}")
        return self._pools[provider]


def _with_connection(work: Callable[[], object]) -> None:
    try:
        work()
    except Exception:
        log.exception("latest.failed")
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
