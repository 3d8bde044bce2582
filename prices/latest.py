"""The freshest quote of a symbol: what is stored, or one fetch shared by all who wait for it."""

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from datetime import datetime, timedelta
from functools import cache, partial
from typing import TypeVar
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from prices.fetching import Asked, Attempt, ask_provider, unknown_symbols
from prices.freshness import age_seconds
from prices.ids import first_id_at, new_ids
from prices.ingest import Stored, store_attempts
from prices.jobs import choose_provider
from prices.models import PricePoint
from prices.outbox import publisher
from prices.patience import patiently
from prices.recent import last_error, without_recent_price
from providers.base import NotConfiguredError, malformed
from providers.flights import Flight
from providers.permits import Refusal, Refused
from providers.registry import get_provider, missing_setting
from providers.shared_state import SharedStateError

CLOCKS_AGREE_WITHIN = timedelta(minutes=1)
COMPARED_WITHIN = timedelta(days=1)

_T = TypeVar("_T")


class LatestTimeoutError(TimeoutError):
    """The provider did not answer in time; what it answers later is stored all the same."""


class RequestRefusedError(RuntimeError):
    """The provider's budget is used up, or its breaker is open; `refused` says which, and until when."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.reason)
        self.refused = refused


class TooOldError(LookupError):
    """The best price is older than the caller takes; `age_s` is None where its age is not known."""

    def __init__(self, age_s: float | None) -> None:
        super().__init__(age_s)
        self.age_s = age_s


class TooManyFetchesError(RuntimeError):
    """As many fetches as may run for callers are running."""


def latest_price(symbol: str, provider: str | None, *, now: datetime) -> PricePoint:
    """Give the freshest point of the symbol, by the named provider or by any.

    A stored one is reused while it was received less than LATEST_REUSE_S ago; else the provider is
    asked, once for all callers of this process who wait for the same.

    Raises NotConfiguredError, ProviderError (what the provider said), LatestTimeoutError after
    LATEST_DEADLINE_S, RequestRefusedError, TooManyFetchesError.
    """
    stored = stored_price(symbol, provider, received_after=now - timedelta(seconds=settings.LATEST_REUSE_S))
    if stored is not None:
        return stored
    name = choose_provider([symbol], provider)
    missing = missing_setting(name)
    if missing is not None:
        raise NotConfiguredError(provider=name, variable=missing)
    fetch = flights().join((name, symbol), partial(fetch_price, name, symbol))
    try:
        fetched = fetch.result(timeout=settings.LATEST_DEADLINE_S)
    except FutureTimeoutError as error:
        raise LatestTimeoutError(name) from error
    if provider is not None:
        return fetched
    # Another provider's stored price may be of a later moment than what was just fetched.
    return stored_price(symbol, None, received_after=now - COMPARED_WITHIN) or fetched


def refuse_older(point: PricePoint, max_age_s: int | None, *, now: datetime) -> None:
    """Raise TooOldError where the price is older than so many seconds, or has no time of its own."""
    if max_age_s is None:
        return
    if point.observed_at is None:
        raise TooOldError(None)
    age_s = age_seconds(point.observed_at, now=now)
    if age_s > max_age_s:
        raise TooOldError(age_s)


def stored_price(symbol: str, provider: str | None, *, received_after: datetime) -> PricePoint | None:
    """Give the stored point with the newest `observed_at` among those received after a time."""
    # The id bounds the partitions that are read; clocks of the service and the database may differ a little.
    oldest_id = first_id_at(received_after - CLOCKS_AGREE_WITHIN)
    points = PricePoint.objects.filter(symbol=symbol, received_at__gt=received_after, id__gte=oldest_id)
    if provider is not None:
        points = points.filter(provider=provider)
    return points.order_by(F("observed_at").desc(nulls_last=True), "-id").first()


def fetch_price(provider: str, symbol: str) -> PricePoint:
    """Ask the provider for one symbol, store what it answered and have the point published.

    Where another process, or a poll, asks for the same just now, its answer is waited for.

    Raises ProviderError where it gave no quote (its answer is stored all the same),
    RequestRefusedError or LatestTimeoutError where it was not asked.
    """
    fetching = _Fetching(provider, symbol)
    asked = fetching.ask()
    while symbol in asked.elsewhere:
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
    def __init__(self, provider: str, symbol: str) -> None:
        self.points: list[PricePoint] = []
        self._provider = provider
        self._symbol = symbol
        self._until = time.monotonic() + settings.LATEST_DEADLINE_S
        self._began = timezone.now()

    def ask(self) -> Asked:
        return ask_provider(
            get_provider(self._provider),
            [self._symbol],
            caller="latest",
            wanted=self._still_wanted,
            keep=self._keep,
            until=self._until,
        )

    def result_of_others(self) -> PricePoint | None:
        """Wait for whoever asks for the symbol; give its point, None where it ended without a word.

        Raises the ProviderError that it was answered, LatestTimeoutError, RequestRefusedError.
        """
        try:
            has_ended = Flight(self._provider).wait_for_others([self._symbol], until=self._until)
        except SharedStateError as error:
            refused = Refused(Refusal.UNAVAILABLE, f"budget unavailable: {error}")
            raise RequestRefusedError(refused) from error
        if not has_ended:
            raise LatestTimeoutError(self._provider)
        found = self._stored()
        if found is None:
            error_of_others = last_error(self._provider, self._symbol, since=self._began)
            if error_of_others is not None:
                raise error_of_others
        return found

    def _still_wanted(self, symbols: Sequence[str]) -> Sequence[str]:
        found = self._stored()
        if found is None:
            return symbols
        self.points.append(found)
        return ()

    def _stored(self) -> PricePoint | None:
        since = self._began - timedelta(seconds=settings.LATEST_REUSE_S)
        return stored_price(self._symbol, self._provider, received_after=since)

    def _keep(self, attempt: Attempt) -> list[str]:
        (raw_id,) = patiently(lambda: new_ids(1))
        stored = patiently(lambda: self._store(attempt, raw_id))
        if stored.points:
            self.points += stored.points
            # Nobody waits for Kafka to read a price that is stored.
            flights().afterwards(lambda: publisher().publish(stored.points, polls={}))
        return patiently(lambda: without_recent_price(self._provider, unknown_symbols(attempt)))

    def _store(self, attempt: Attempt, raw_id: UUID) -> Stored:
        with transaction.atomic():
            return store_attempts([attempt], raw_ids=[raw_id], provider=self._provider, poll=None)


class Flights:
    """Fetches under way: one for each key, however many wait for it, and `limit` at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._under_way: dict[Hashable, Future[PricePoint]] = {}
        self._pool = ThreadPoolExecutor(limit, thread_name_prefix="latest")

    def join(self, key: Hashable, fetch: Callable[[], PricePoint]) -> Future[PricePoint]:
        """Give the fetch of this key that is under way, or start it. Raises TooManyFetchesError."""
        with self._lock:
            if key in self._under_way:
                return self._under_way[key]
            if len(self._under_way) >= self._limit:
                raise TooManyFetchesError
            flight = self._pool.submit(_with_connection, fetch)
            self._under_way[key] = flight
        flight.add_done_callback(lambda _: self._land(key))
        return flight

    def afterwards(self, work: Callable[[], object]) -> None:
        """Do what no caller waits for."""
        self._pool.submit(_with_connection, work)

    @property
    def under_way(self) -> int:
        """The number of fetches that run."""
        return len(self._under_way)

    def close(self) -> None:
        """Wait for what runs, and take no more."""
        self._pool.shutdown()

    def _land(self, key: Hashable) -> None:
        with self._lock:
            del self._under_way[key]


def _with_connection(work: Callable[[], _T]) -> _T:
    # Outside a request nobody else ends this thread's connection.
    try:
        return work()
    finally:
        connection.close()


@cache
def flights() -> Flights:
    """Give this process's fetches for callers."""
    return Flights(settings.LATEST_MAX_FETCHES)


def forget_flights() -> None:
    """End this process's fetches; the next use begins anew with the settings as they are then."""
    flights().close()
    flights.cache_clear()
