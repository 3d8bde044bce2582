"""One reader for all clients: what was written is read once, and given to those who want it."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

import structlog
from django.db import Error, connection

from prices.clock import Reading
from prices.database.time_limit import time_limit
from prices.heartbeat import touch_heartbeat
from prices.outage_log import Outage
from prices.stream import reading
from prices.stream.events import sse_frame
from prices.stream.positions import Cursor, Position
from prices.stream.reading import Page
from prices.stream.subscription import Subscription

log = structlog.get_logger(__name__)

LOOK_EACH_S = 0.05
# While there is no client, and after a failure.
REST_S = 1.0
STALLED_AFTER = timedelta(seconds=5)
ANSWER_LIMIT_S = 6.0
# Of those that catch up, begin, or show who they are.
THREADS = 4
# More symbols than these are not asked for one by one.
MOST_NAMED = 1_000

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Look:
    history: str
    page: Page
    clock: Reading
    waiting_since: datetime | None


class Hub:
    """Reads what comes, and knows who wants it. All but the queries runs in one event loop."""

    def __init__(self) -> None:
        self._of_symbol: defaultdict[str, set[Subscription]] = defaultdict(set)
        self._of_all: set[Subscription] = set()
        self._joined: set[Subscription] = set()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="reader")
        self._others = ThreadPoolExecutor(THREADS, thread_name_prefix="clients")
        self._outage = Outage(began="stream.database_away", ended="stream.database_back")
        self._failing_since: datetime | None = None
        self._clock: Reading | None = None
        self._is_ready = asyncio.Event()
        self.subscriptions: set[Subscription] = set()
        self.history = ""
        self.position = Position(0)
        self.stalled_since: datetime | None = None
        self._stall_reason = ""

    @property
    def cursor(self) -> Cursor:
        """Where the reader is."""
        return Cursor(self.history, self.position)

    @property
    def now(self) -> datetime:
        """The time by PostgreSQL's clock."""
        assert self._clock is not None
        return self._clock.now

    async def ready(self, *, timeout_s: float) -> bool:
        """Return whether the reader has begun, once it has or the time is over."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._is_ready.wait()
        except TimeoutError:
            return False
        return True

    def subscribe(self, symbols: Sequence[str] | None, position: Position | None) -> Subscription:
        """Return the events of symbols, None for all, from a position on, or from where the reader is."""
        subscription = Subscription(symbols, self.position if position is None else position)
        subscription.is_behind = position is not None
        self.subscriptions.add(subscription)
        self._joined.add(subscription)
        for group in self._groups(subscription):
            group.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget a client."""
        self.subscriptions.discard(subscription)
        self._joined.discard(subscription)
        for group in self._groups(subscription):
            group.discard(subscription)
        for symbol in subscription.symbols or ():
            if not self._of_symbol[symbol]:
                del self._of_symbol[symbol]

    async def query(self, work: Callable[[], _T]) -> _T:
        """Return what a query returns, which is made beside the reader. Raises what the database raises."""
        return await asyncio.get_running_loop().run_in_executor(self._others, _in_database, work)

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            began = time.monotonic()
            rest_s = LOOK_EACH_S if self.subscriptions else REST_S
            try:
                await self._look()
            except Error as error:
                self._fail(str(error).partition("\n")[0])
                rest_s = REST_S
            touch_heartbeat("stream")
            await asyncio.sleep(max(rest_s - (time.monotonic() - began), 0))

    def close(self) -> None:
        """Let the threads end."""
        self._reader.shutdown(wait=False, cancel_futures=True)
        self._others.shutdown(wait=False, cancel_futures=True)

    async def _look(self) -> None:
        self._joined.clear()
        after = self.position if self.subscriptions and self.history else None
        symbols = self._wanted()
        # A connection that was lost may have been to a server that is another one now.
        history = "" if self._outage.is_under_way else self.history
        while True:
            look = await asyncio.get_running_loop().run_in_executor(
                self._reader, _in_database, partial(_read, after, symbols, history)
            )
            self._take(look, is_jump=after is None)
            if look.page.is_last or after is None:
                return
            after, history = look.page.end, look.history

    def _take(self, look: _Look, *, is_jump: bool) -> None:
        self._outage.end()
        self._failing_since = None
        self._clock = look.clock
        if self.history not in ("", look.history):
            log.warning("stream.history_changed")
            for subscription in self.subscriptions:
                subscription.end("the database is another one")
            is_jump = True
        self.history = look.history
        if look.page.end != self.position or is_jump:
            # They came while this was read, and their symbols may not have been asked for.
            for subscription in self._joined:
                subscription.fall_behind()
        for event in look.page.events:
            for subscription in (*self._of_symbol.get(event.row.symbol, ()), *self._of_all):
                subscription.offer(event)
        self.position = look.page.end
        self._is_ready.set()
        self._tell_stalls(look.waiting_since, "a transaction that is still open holds back what was written")

    def _fail(self, reason: str) -> None:
        self._outage.begin(reason)
        if self._clock is not None:
            self._failing_since = self._failing_since or self.now
            self._tell_stalls(self._failing_since, "the database cannot be reached")

    def _tell_stalls(self, since: datetime | None, reason: str) -> None:
        is_stalled = since is not None and self.now - since > STALLED_AFTER
        if is_stalled == (self.stalled_since is not None):
            return
        if is_stalled:
            log.warning("stream.stalled", reason=reason)
            self.stalled_since, self._stall_reason = since, reason
            frame = self.stall_frame()
        else:
            log.warning("stream.resumed")
            self.stalled_since = None
            frame = sse_frame("resumed", {})
        for subscription in self.subscriptions:
            subscription.notify(frame)

    def stall_frame(self) -> bytes:
        """Return what tells a client since when nothing has come, and why."""
        return sse_frame("stalled", {"since": self.stalled_since, "reason": self._stall_reason})

    def _groups(self, subscription: Subscription) -> list[set[Subscription]]:
        if subscription.symbols is None:
            return [self._of_all]
        return [self._of_symbol[symbol] for symbol in subscription.symbols]

    def _wanted(self) -> list[str] | None:
        return None if self._of_all or len(self._of_symbol) > MOST_NAMED else list(self._of_symbol)


def _read(after: Position | None, symbols: Sequence[str] | None, history: str) -> _Look:
    history = history or reading.read_history()
    clock, waiting_since = reading.read_clock_and_waiting()
    if after is None:
        return _Look(history, Page([], reading.newest_position(), is_last=True), clock, waiting_since)
    return _Look(history, reading.read_page(after, symbols=symbols), clock, waiting_since)


def _in_database(work: Callable[[], _T]) -> _T:
    """Call what asks the database, and leave no connection behind that may be broken."""
    try:
        connection.ensure_connection()
        with time_limit(connection.connection, seconds=ANSWER_LIMIT_S):
            return work()
    except Error:
        connection.close()
        raise
