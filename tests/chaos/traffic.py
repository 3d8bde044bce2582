"""The harness's own price events: fresh, late, twice, and between them what is no event at all.

A point is stored before it is sent and marked once Kafka has confirmed it, as the outbox does; what
Kafka does not take in time is sent by the service's own sweep as well, and what PostgreSQL's clock has dated
ahead of Kafka's by that alone.
"""

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from random import Random
from uuid import UUID

from confluent_kafka import KafkaError, Message, Producer
from django.conf import settings

from prices.database.uuid7 import first_id_at, made_at_ms
from prices.models import PricePoint
from prices.publishing.events import encode_event
from prices.publishing.kafka_clients import delivery_error
from tests.chaos.database import Database
from tests.chaos.poison import Headers, Poison, id_at, make_poison

PROVIDER = "chaos"
CURRENCIES = (None, "GBp", "GBP")
TURN_S = 0.1
POINTS_A_TURN = 4
HELD_BACK, SENT_TWICE, POISONED = 0.15, 0.15, 0.1  # shares
LONGEST_HOLD_S = 12.0
# Shares of the provider's times: so many lie up to an hour back, so many have whole seconds, which repeat.
OBSERVED_LATE, OBSERVED_BY_SECOND = 0.06, 0.5
LATEST_S = 3_600
BURST = {"duplicates": 300, "late": 100, "poison": 30}
BACK_DATED_MS = 60_000
DELIVERY_S = 30
SENT_AHEAD_MS = 30_000

_STORE = """
    INSERT INTO price_points (id, symbol, provider, price, currency, observed_at, precision, received_at, raw)
    SELECT id, symbol, %(provider)s, price, currency, observed, 'second', received, id
    FROM unnest(%(ids)s::uuid[], %(symbols)s::text[], %(prices)s::numeric[], %(currencies)s::text[],
                %(observed)s::timestamptz[], %(received)s::timestamptz[])
        point (id, symbol, price, currency, observed, received)
    ON CONFLICT DO NOTHING
"""
_MARK = "UPDATE price_points SET published_at = now() WHERE id = ANY(%s) AND published_at IS NULL"


class Traffic:
    """Sends from a thread of its own until `finish`; what it sends follows from the seed."""

    def __init__(self, database: Database, symbols: Sequence[str], *, seed: int) -> None:
        self.sent: Counter[str] = Counter()
        # By their keys, which all differ.
        self.poison: dict[bytes, Poison] = {}
        self.confirmed_poison: set[bytes] = set()
        self._database = database
        self._symbols = symbols
        self._rng = Random(f"traffic {seed}")
        self._bursts: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._held: list[tuple[float, PricePoint]] = []
        self._old: list[PricePoint] = []
        self._confirmed: list[UUID] = []
        self._over = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="traffic")
        self._producer = Producer(
            {
                "bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 2,
                "message.max.bytes": 1_048_576,
                # Longer than Kafka is ever away.
                "message.timeout.ms": DELIVERY_S * 1000,
                "reconnect.backoff.max.ms": 1000,
                "log_level": 0,
            }
        )

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def burst(self, kind: str) -> None:
        """Send many `duplicates`, `late` events or `poison` at once, in the next turn."""
        self._bursts.put(kind)

    def finish(self) -> None:
        """Send what is held back, wait until Kafka confirmed it or time is over, and end.

        Raises what went wrong in the thread.
        """
        self.close()
        if self._error is not None:
            raise self._error
        self._send([point for _, point in self._held], "late")
        self._held = []
        assert self._producer.flush(2 * DELIVERY_S) == 0
        self._mark()

    def close(self) -> None:
        """End the thread, where it runs."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            while not self._over.wait(TURN_S):
                self._turn()
        except Exception as error:  # noqa: BLE001 - raised again by `finish`
            self._error = error

    def _turn(self) -> None:
        fresh = self._points(POINTS_A_TURN)
        late = [point for point in fresh if self._rng.random() < HELD_BACK]
        now = time.monotonic()
        self._held += [(now + self._rng.uniform(0.3, LONGEST_HOLD_S), point) for point in late]
        self._send([point for point in fresh if point not in late], "fresh")
        self._send([point for due, point in self._held if due <= now], "late")
        self._held = [(due, point) for due, point in self._held if due > now]
        self._repeat(1 if self._rng.random() < POINTS_A_TURN * SENT_TWICE else 0)
        self._send_poison(1 if self._rng.random() < POISONED else 0)
        while not self._bursts.empty():
            self._burst(self._bursts.get())
        self._producer.poll(0)
        self._mark()

    def _burst(self, kind: str) -> None:
        number = BURST[kind]
        if kind == "duplicates":
            self._repeat(number)
        elif kind == "poison":
            self._send_poison(number)
        else:
            self._send(self._points(number, back_dated_ms=BACK_DATED_MS), "late")

    def _repeat(self, number: int) -> None:
        for _ in range(number if self._old else 0):
            self._send_point(self._rng.choice(self._old), "duplicates")

    def _send(self, points: Sequence[PricePoint], kind: str) -> None:
        if not points:
            return
        columns = {
            "ids": [point.id for point in points],
            "symbols": [point.symbol for point in points],
            "prices": [point.price for point in points],
            "currencies": [point.currency for point in points],
            "observed": [point.observed_at for point in points],
            "received": [point.received_at for point in points],
        }
        self._database.rows(_STORE, columns | {"provider": PROVIDER})
        # The others are left to the sweep: by now the consumer would refuse them.
        in_time = [point for point in points if made_at_ms(point.id) < _now_ms() + SENT_AHEAD_MS]
        for point in in_time:
            self._send_point(point, kind)
        self.sent["left to the sweep"] += len(points) - len(in_time)
        self._old += in_time

    def _send_point(self, point: PricePoint, kind: str) -> None:
        message = encode_event(point, poll=None)
        confirmed = partial(self._confirmed.append, point.id)
        self._produce(message.key, message.value, message.headers, confirmed)
        self.sent[kind] += 1

    def _send_poison(self, number: int) -> None:
        for _ in range(number):
            poison = make_poison(self._rng, now_ms=_now_ms())
            self.poison[poison.key] = poison
            confirmed = partial(self.confirmed_poison.add, poison.key)
            self._produce(poison.key, poison.value, poison.headers, confirmed)
            self.sent["poison"] += 1

    def _produce(
        self, key: bytes, value: bytes | None, headers: Headers, confirmed: Callable[[], None]
    ) -> None:
        def report(error: KafkaError | None, message: Message) -> None:
            # A point that is not confirmed stays unpublished, and the service's sweep sends it.
            if delivery_error(error, message) is None:
                confirmed()
            else:
                self.sent["unconfirmed"] += 1

        self._producer.produce(
            settings.KAFKA_TOPIC, key=key, value=value, headers=headers, on_delivery=report
        )

    def _mark(self) -> None:
        if self._confirmed:
            self._database.rows(_MARK, [self._confirmed])
            self._confirmed.clear()

    def _points(self, number: int, *, back_dated_ms: int = 1) -> list[PricePoint]:
        # By PostgreSQL's clock, as the service's are. Its `uuidv7()` would not go back with that clock.
        at = self._database.value("SELECT clock_timestamp()")
        now_ms = made_at_ms(first_id_at(at))
        ids = sorted(id_at(now_ms - self._rng.randrange(back_dated_ms), self._rng) for _ in range(number))
        return [
            PricePoint(
                id=each,
                symbol=self._rng.choice(self._symbols),
                provider=PROVIDER,
                price=Decimal(self._rng.randint(1, 10**11)).scaleb(-self._rng.randrange(17)),
                currency=self._rng.choice(CURRENCIES),
                observed_at=self._observed(at),
                precision="second",
                received_at=at,
                raw=each,
            )
            for each in ids
        ]

    def _observed(self, at: datetime) -> datetime:
        """Return the provider's time of a price that comes now: sometimes long ago, and told before."""
        if self._rng.random() < OBSERVED_LATE:
            at -= timedelta(seconds=self._rng.randrange(LATEST_S))
        return at.replace(microsecond=0) if self._rng.random() < OBSERVED_BY_SECOND else at


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
