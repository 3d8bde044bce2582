"""One client's stream: what it is sent from its begin to its end."""

import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial

from django.db import Error

from prices.stream import reading
from prices.stream.events import StoredRow, sse_frame, with_quality
from prices.stream.hub import Hub
from prices.stream.positions import Cursor
from prices.stream.snapshots import read_snapshots
from prices.stream.subscription import MOST_AT_ONCE, Subscription

# A client that has heard nothing for so long is told where it is.
QUIET_FOR_S = 15.0
# So long it waits before it comes back; not all at once.
RETRY_MS = (1_000, 3_000)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client asks for: symbols (None: all), and from where on; `cursor` None is from now on."""

    symbols: Sequence[str] | None
    cursor: Cursor | None
    is_without_snapshot: bool = False


@dataclass(frozen=True, slots=True)
class Begin:
    """How a stream begins: why not where the client asked for, what it is told first."""

    subscription: Subscription
    reset_reason: str | None
    snapshots: Sequence[StoredRow]


async def begin(hub: Hub, wish: Wish) -> Begin:
    """Begin a client's stream. Raises what the database raises."""
    reset_reason = await _reset_reason(hub, wish.cursor)
    resumed = wish.cursor.position if wish.cursor is not None and reset_reason is None else None
    # The snapshot is read afterwards, so what comes meanwhile is in one of the two.
    subscription = hub.subscribe(wish.symbols, resumed)
    try:
        is_told = resumed is None and not (wish.is_without_snapshot and wish.cursor is None)
        read = partial(read_snapshots, wish.symbols, now=hub.now)
        return Begin(subscription, reset_reason, await hub.query(read) if is_told else [])
    except BaseException:
        hub.unsubscribe(subscription)
        raise


async def frames(hub: Hub, start: Begin) -> AsyncIterator[bytes]:
    """Yield what the client is sent, until it is to be ended; the caller unsubscribes it."""
    subscription = start.subscription
    yield b"retry: %d\n\n" % random.randint(*RETRY_MS)  # noqa: S311 - no secret
    if start.reset_reason is not None:
        yield sse_frame("reset", {"reason": start.reset_reason})
    for row in start.snapshots:
        yield sse_frame("snapshot", with_quality(row, now=hub.now))
    if not subscription.is_behind:
        # Only now: who is cut off before gets the snapshot again.
        yield _where(hub, subscription)
    if hub.stalled_since is not None:
        yield hub.stall_frame()
    while subscription.end_reason is None:
        if subscription.is_behind:
            async for caught_up in _catch_up(hub, subscription):
                yield caught_up
            continue
        await subscription.wait(timeout_s=QUIET_FOR_S)
        yield subscription.take(hub.history, now=hub.now) or _where(hub, subscription)


async def _catch_up(hub: Hub, subscription: Subscription) -> AsyncIterator[bytes]:
    """Yield a page of what the tables have; where it is the last one, the reader goes on from there."""
    subscription.catch_up_from_here()
    try:
        read = partial(reading.read_page, subscription.position, symbols=subscription.symbols)
        page = await hub.query(read)
    except Error:
        subscription.end("the database cannot be reached")
        return
    for begin_at in range(0, len(page.events), MOST_AT_ONCE):
        some = page.events[begin_at : begin_at + MOST_AT_ONCE]
        yield b"".join(event.frame(hub.history, now=hub.now) for event in some)
        subscription.position = some[-1].position
    subscription.position = max(subscription.position, page.end)
    if not page.is_last:
        subscription.fall_behind()


def _where(hub: Hub, subscription: Subscription) -> bytes:
    """Return where a client is that has had all that came."""
    if subscription.is_idle:
        subscription.position = max(subscription.position, hub.position)
    return b"id: %s\n\n" % str(Cursor(hub.history, subscription.position)).encode()


async def _reset_reason(hub: Hub, cursor: Cursor | None) -> str | None:
    """Return why a client cannot go on where it was; None where it can, or comes anew."""
    if cursor is None:
        return None
    if cursor.history != hub.history:
        return "the id is of another database"
    if not await hub.query(partial(reading.is_known, cursor.position)):
        return "the id is older than what is kept"
    return None
