"""Averages that are stored at a steady rate, as the consumer stores them."""

import random
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal

from bench.stream_clients import symbol_name
from consumers.averages.columns import columns_of
from consumers.averages.rows import rows_of
from consumers.averages.store import AverageStore
from prices.database.uuid7 import new_ids
from prices.models import PricePoint
from prices.publishing.events import PriceEvent

# About how often a consumer commits at this rate.
BATCH_EACH_S = 0.02


class SteadyWriter:
    """Stores points and averages of so many symbols, a random walk each."""

    def __init__(self, *, symbols: int) -> None:
        self._chance = random.Random(1)
        self._cents = [10_000 + number for number in range(symbols)]
        self._store = AverageStore()

    def write(self, *, rate: int, seconds: float) -> dict[str, str]:
        """Store `rate` events a second for so long; return the symbol of each by its id."""
        began = time.perf_counter()
        written: dict[str, str] = {}
        while (elapsed := time.perf_counter() - began) < seconds:
            due = int(elapsed * rate) - len(written)
            if due:
                written |= {str(point.id): point.symbol for point in self._write_batch(due)}
            time.sleep(max(BATCH_EACH_S - (time.perf_counter() - began - elapsed), 0))
        return written

    def write_each(self) -> None:
        """Store an event of each symbol."""
        self._write_batch(len(self._cents), numbers=range(len(self._cents)))

    def _write_batch(self, count: int, numbers: Sequence[int] = ()) -> list[PricePoint]:
        chosen = numbers or [self._chance.randrange(len(self._cents)) for _ in range(count)]
        points = list(self._points(chosen))
        PricePoint.objects.bulk_create(points)
        columns = columns_of(_event_of(point) for point in points)
        prepared = self._store.prepare(columns, rows_of(columns), [], speculative=False)
        assert prepared is not None
        self._store.write(prepared)
        return points

    def _points(self, numbers: Sequence[int]) -> Iterator[PricePoint]:
        now = datetime.now(UTC)
        for event_id, number in zip(new_ids(len(numbers)), numbers, strict=True):
            self._cents[number] += self._chance.randrange(-20, 21)
            yield PricePoint(
                id=event_id,
                symbol=symbol_name(number),
                provider="simulated",
                price=Decimal(self._cents[number]).scaleb(-2),
                currency="USD",
                observed_at=now.replace(microsecond=0),
                precision="second",
                received_at=now,
                published_at=now,
                raw=event_id,
            )

    def close(self) -> None:
        """Close its connection."""
        self._store.close()


def _event_of(point: PricePoint) -> PriceEvent:
    return PriceEvent(point.id, point.symbol, point.price, point.provider, point.observed_at, point.currency)
