"""Fetching one price for callers who wait: one request for all of them, its answer stored and published.

Two limits of the same size, LATEST_MAX_FETCHES, and one for each provider:

callers    so many threads of the server wait at once, whatever they wait for; the rest of the threads
           go on answering what is stored
fetches    so many run at once from one provider, each in a thread of its own. A fetch goes on after its
           callers have left, so a provider that hangs uses up its own fetches, and nobody else's
"""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TypeVar
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection, transaction

from prices.clock import database_now
from prices.database.retry import retry_database
from prices.database.uuid7 import new_ids
from prices.fetching.exchange import RoundTrip, unknown_symbols
from prices.fetching.ingest import Stored, store_round_trips
from prices.fetching.last_points import add_points
from prices.fetching.recent import last_error, without_recent_price
from prices.fetching.requests import FetchResult, ask_provider
from prices.latest.errors import FETCH_ERRORS, LatestTimeoutError, RequestRefusedError, TooManyFetchesError
from prices.latest.stored import stored_price
from prices.models import PricePoint
from prices.publishing.publisher import publisher
from providers.base import ErrorKind, malformed
from providers.rate_limits.permits import Refusal, Refused
from providers.rate_limits.redis_scripts import SharedStateError
from providers.rate_limits.symbol_leases import Lease
from providers.registry import get_provider

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


def fetch_price(provider: str, symbol: str, *, reuse_s: float = math.inf) -> PricePoint:
    """Ask the provider for one symbol, store what it answered and have the point published.

    Where another process, or a poll, asks for the same just now, its answer is waited for; one that came a
    moment before is taken, if less than `reuse_s` ago.

    Raises ProviderError where it gave no quote (its answer is stored all the same),
    RequestRefusedError or LatestTimeoutError where it was not asked.
    """
    fetching = _Fetching(provider, symbol, reuse_s)
    asked = fetching.ask()
    while symbol in asked.in_flight_elsewhere:
        found = fetching.result_of_others()
        if found is not None:
            return found
        asked = fetching.ask()
    if fetching.points:
        return fetching.points[0]
    if symbol in asked.errors:
        raise asked.errors[symbol]
    if symbol in asked.results:
        raise malformed("the database cannot hold this price")
    # Refused, or its turn did not come: others were faster at each moment of the provider's pace.
    raise RequestRefusedError(asked.refused) if asked.refused else LatestTimeoutError(provider)


class _Fetching:
    def __init__(self, provider: str, symbol: str, reuse_s: float) -> None:
        self.points: list[PricePoint] = []
        self._provider = provider
        self._symbol = symbol
        self._deadline = time.monotonic() + settings.LATEST_DEADLINE_S
        self._began = database_now()
        self._just_now = timedelta(seconds=min(reuse_s, settings.LATEST_REUSE_S))

    def ask(self) -> FetchResult:
        return ask_provider(
            get_provider(self._provider),
            [self._symbol],
            caller="latest",
            still_wanted=self._still_wanted,
            on_answer=self._keep,
            deadline=self._deadline,
        )

    def result_of_others(self) -> PricePoint | None:
        """Wait for whoever asks for the symbol; return its point, None where it is to be asked for anew.

        That is so where it ended without a word, and after a limit. Raises any other ProviderError that it
        was answered, LatestTimeoutError, RequestRefusedError.
        """
        try:
            has_ended = Lease(self._provider).wait_for_others([self._symbol], deadline=self._deadline)
        except SharedStateError as error:
            refused = Refused(Refusal.UNAVAILABLE, f"budget unavailable: {error}")
            raise RequestRefusedError(refused) from error
        if not has_ended:
            raise LatestTimeoutError(self._provider)
        found = self._stored()
        if found is None:
            error_of_others = last_error(self._provider, self._symbol, since=self._began)
            # How long a limit lasts stands in no row: who asks for a permit is told.
            if error_of_others is not None and error_of_others.kind != ErrorKind.RATE_LIMITED:
                raise error_of_others
        return found

    def _still_wanted(self, symbols: Sequence[str]) -> Sequence[str]:
        found = self._stored()
        if found is None:
            return symbols
        self.points.append(found)
        return ()

    def _stored(self) -> PricePoint | None:
        # What others asked for may have come a moment before this call began, and been stored after it.
        return stored_price(self._symbol, self._provider, received_after=self._began - self._just_now)

    def _keep(self, round_trip: RoundTrip) -> list[str]:
        (raw_id,) = retry_database(lambda: new_ids(1))
        stored = retry_database(lambda: self._store(round_trip, raw_id))
        if stored.points:
            self.points += stored.points
            add_points(stored.points)
            # Nobody waits for Kafka to read a price that is stored.
            single_flight().afterwards(lambda: publisher().publish(stored.points, polls={}))
        return retry_database(lambda: without_recent_price(self._provider, unknown_symbols(round_trip)))

    def _store(self, round_trip: RoundTrip, raw_id: UUID) -> Stored:
        with transaction.atomic():
            return store_round_trips([round_trip], raw_ids=[raw_id], provider=self._provider, poll=None)
