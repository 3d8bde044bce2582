"""Asking one provider for callers who wait, its answers stored and published."""

import math
import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction

from prices.clock import database_now
from prices.database.retry import retry_database
from prices.database.uuid7 import new_ids
from prices.fetching.exchange import RoundTrip, unknown_symbols
from prices.fetching.ingest import Stored, store_round_trips
from prices.fetching.last_points import add_points
from prices.fetching.recent import last_error, without_recent_price
from prices.fetching.requests import FetchResult, ask_provider
from prices.latest.errors import LatestTimeoutError, RequestRefusedError
from prices.latest.single_flight import Land, single_flight
from prices.latest.stored import stored_prices
from prices.models import PricePoint
from prices.publishing.publisher import publisher
from providers.adapters.yahoo.batches import asks_singly
from providers.base import ErrorKind, malformed
from providers.rate_limits.permits import Refusal, Refused
from providers.rate_limits.redis_scripts import SharedStateError
from providers.rate_limits.symbol_leases import Lease
from providers.registry import get_provider

# A call for many symbols has so many requests to a provider under way at once.
REQUESTS_AT_ONCE = 4


def groups_of(provider: str, symbols: Sequence[str]) -> list[list[str]]:
    """Return the symbols in groups that are fetched beside each other; those of one request stay together."""
    requests = list(get_provider(provider).plan(symbols, singly=asks_singly(provider)))
    groups: list[list[str]] = [[] for _ in range(min(len(requests), REQUESTS_AT_ONCE))]
    for place, request in enumerate(requests):
        groups[place % len(groups)] += request.symbols
    return groups


def fetch_prices(provider: str, symbols: Sequence[str], land: Land, *, reuse_s: float = math.inf) -> None:
    """Ask the provider for the symbols, store what it answered and have the points published.

    `land` gets each point as soon as it is stored, or why there is none: ProviderError where the provider
    gave no quote (its answer is stored all the same), RequestRefusedError or LatestTimeoutError where it was
    not asked.

    Where another process, or a poll, asks for a symbol just now, its answer is waited for; one that came a
    moment before is taken, if less than `reuse_s` ago.
    """
    _Fetching(provider, land, reuse_s).run(symbols)


class _Fetching:
    def __init__(self, provider: str, land: Land, reuse_s: float) -> None:
        self._provider = provider
        self._land = land
        self._landed: set[str] = set()
        self._deadline = time.monotonic() + settings.LATEST_DEADLINE_S
        self._began = database_now()
        self._just_now = timedelta(seconds=min(reuse_s, settings.LATEST_REUSE_S))

    def run(self, symbols: Sequence[str]) -> None:
        left = symbols
        while left:
            asked = self._ask(left)
            elsewhere = [symbol for symbol in left if symbol in asked.in_flight_elsewhere]
            for symbol in left:
                if symbol not in elsewhere:
                    self._end(symbol, self._error_of(symbol, asked))
            left = self._wait_for_others(self._not_landed(elsewhere))

    def _ask(self, symbols: Sequence[str]) -> FetchResult:
        return ask_provider(
            get_provider(self._provider),
            symbols,
            caller="latest",
            still_wanted=self._still_wanted,
            on_answer=self._keep,
            deadline=self._deadline,
        )

    def _error_of(self, symbol: str, asked: FetchResult) -> Exception:
        """Return why a symbol has no point once all that could be asked for was."""
        if symbol in asked.errors:
            return asked.errors[symbol]
        if symbol in asked.results:
            return malformed("the database cannot hold this price")
        # Refused, or its turn did not come: others were faster at each moment of the provider's pace.
        return RequestRefusedError(asked.refused) if asked.refused else LatestTimeoutError(self._provider)

    def _wait_for_others(self, symbols: Sequence[str]) -> Sequence[str]:
        """Wait for whoever asks for the symbols, and take what they got; return those to be asked for anew.

        That is so where it ended without a word, and after a limit.
        """
        if not symbols:
            return ()
        try:
            has_ended = Lease(self._provider).wait_for_others(symbols, deadline=self._deadline)
        except SharedStateError as error:
            refused = Refused(Refusal.UNAVAILABLE, f"budget unavailable: {error}")
            self._end_all(symbols, RequestRefusedError(refused))
            return ()
        left = self._take_stored(symbols)
        if not has_ended:
            self._end_all(left, LatestTimeoutError(self._provider))
            return ()
        for symbol in left:
            error_of_others = last_error(self._provider, symbol, since=self._began)
            # How long a limit lasts stands in no row: who asks for a permit is told.
            if error_of_others is not None and error_of_others.kind != ErrorKind.RATE_LIMITED:
                self._end(symbol, error_of_others)
        return self._not_landed(left)

    def _still_wanted(self, symbols: Sequence[str]) -> Sequence[str]:
        return self._take_stored(symbols)

    def _take_stored(self, symbols: Sequence[str]) -> Sequence[str]:
        """Land those that are stored; return the others."""
        # What others asked for may have come a moment before this call began, and been stored after it.
        since = self._began - self._just_now
        for symbol, point in stored_prices(symbols, self._provider, received_after=since).items():
            self._end(symbol, point)
        return self._not_landed(symbols)

    def _keep(self, round_trip: RoundTrip) -> list[str]:
        (raw_id,) = retry_database(lambda: new_ids(1))
        stored = retry_database(lambda: self._store(round_trip, raw_id))
        if stored.points:
            add_points(stored.points)
            for point in stored.points:
                self._end(point.symbol, point)
            # Nobody waits for Kafka to read a price that is stored.
            single_flight().afterwards(lambda: publisher().publish(stored.points, polls={}))
        return retry_database(lambda: without_recent_price(self._provider, unknown_symbols(round_trip)))

    def _store(self, round_trip: RoundTrip, raw_id: UUID) -> Stored:
        with transaction.atomic():
            return store_round_trips([round_trip], raw_ids=[raw_id], provider=self._provider, poll=None)

    def _end_all(self, symbols: Iterable[str], error: Exception) -> None:
        for symbol in symbols:
            self._end(symbol, error)

    def _end(self, symbol: str, found: PricePoint | Exception) -> None:
        if symbol not in self._landed:
            self._landed.add(symbol)
            self._land(symbol, found)

    def _not_landed(self, symbols: Sequence[str]) -> list[str]:
        return [symbol for symbol in symbols if symbol not in self._landed]
