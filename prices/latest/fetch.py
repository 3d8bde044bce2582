"""Fetching one price for a caller who waits: asked, stored, published."""

import math
import time
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction

from prices.clock import database_now
from prices.database.retry import retry_database
from prices.database.uuid7 import new_ids
from prices.fetching.exchange import RoundTrip, unknown_symbols
from prices.fetching.ingest import Stored, store_round_trips
from prices.fetching.recent import last_error, without_recent_price
from prices.fetching.requests import FetchResult, ask_provider
from prices.latest.errors import LatestTimeoutError, RequestRefusedError
from prices.latest.single_flight import single_flight
from prices.latest.stored import stored_price
from prices.models import PricePoint
from prices.publishing.publisher import publisher
from providers.base import ErrorKind, malformed
from providers.rate_limits.permits import Refusal, Refused
from providers.rate_limits.redis_scripts import SharedStateError
from providers.rate_limits.symbol_leases import Lease
from providers.registry import get_provider


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
        self._until = time.monotonic() + settings.LATEST_DEADLINE_S
        self._began = database_now()
        self._just_now = timedelta(seconds=min(reuse_s, settings.LATEST_REUSE_S))

    def ask(self) -> FetchResult:
        return ask_provider(
            get_provider(self._provider),
            [self._symbol],
            caller="latest",
            still_wanted=self._still_wanted,
            on_answer=self._keep,
            until=self._until,
        )

    def result_of_others(self) -> PricePoint | None:
        """Wait for whoever asks for the symbol; return its point, None where it is to be asked for anew.

        That is so where it ended without a word, and after a limit. Raises any other ProviderError that it
        was answered, LatestTimeoutError, RequestRefusedError.
        """
        try:
            has_ended = Lease(self._provider).wait_for_others([self._symbol], until=self._until)
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
            # Nobody waits for Kafka to read a price that is stored.
            single_flight().afterwards(lambda: publisher().publish(stored.points, polls={}))
        return retry_database(lambda: without_recent_price(self._provider, unknown_symbols(round_trip)))

    def _store(self, round_trip: RoundTrip, raw_id: UUID) -> Stored:
        with transaction.atomic():
            return store_round_trips([round_trip], raw_ids=[raw_id], provider=self._provider, poll=None)
