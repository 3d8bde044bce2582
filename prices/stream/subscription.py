"""What one client waits for, in bounded memory.

A client that takes less than comes is not kept in memory: what does not fit is left out, and read again from
the tables once it has taken the rest.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import datetime

from prices.stream.events import StreamEvent
from prices.stream.positions import Position

# Some 600 KB, with the objects that they are.
MOST_WAITING = 300
# What is sent at once.
MOST_AT_ONCE = 64


class Subscription:
    """The events of a client's symbols (None: of all) that came since its position."""

    def __init__(self, symbols: Sequence[str] | None, position: Position) -> None:
        self.symbols = symbols
        self.position = position
        self.is_behind = False
        self.end_reason: str | None = None
        self._waiting: deque[StreamEvent] = deque()
        self._notices: deque[bytes] = deque()
        self._has_news = asyncio.Event()

    def offer(self, event: StreamEvent) -> None:
        """Keep an event until the client takes it, or note that the tables have more."""
        if self.is_behind:
            return
        if len(self._waiting) >= MOST_WAITING:
            self.fall_behind()
        else:
            self._waiting.append(event)
            self._has_news.set()

    def fall_behind(self) -> None:
        """Leave to the tables what the client has not taken yet."""
        self.is_behind = True
        self._waiting.clear()
        self._has_news.set()

    @property
    def is_idle(self) -> bool:
        """Whether the client has taken all that came."""
        return not self.is_behind and not self._waiting

    def notify(self, frame: bytes) -> None:
        """Have something sent that is no event of a symbol."""
        self._notices.append(frame)
        self._has_news.set()

    def end(self, reason: str) -> None:
        """End the client's stream."""
        self.end_reason = reason
        self._has_news.set()

    def catch_up_from_here(self) -> None:
        """Take events again; those of before are to be read after this call."""
        self.is_behind = False

    async def wait(self, *, timeout_s: float) -> None:
        """Wait until there is something to take."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._has_news.wait()
        except TimeoutError:
            return

    def take(self, history: str, *, now: datetime) -> bytes:
        """Return what has come, as it is sent; empty where there is nothing."""
        frames = [self._notices.popleft() for _ in range(len(self._notices))]
        while self._waiting and len(frames) < MOST_AT_ONCE:
            event = self._waiting.popleft()
            # What was read from the tables may have come from the reader, too.
            if event.position > self.position:
                frames.append(event.frame(history, now=now))
                self.position = event.position
        if not self._waiting and not self.is_behind and self.end_reason is None:
            self._has_news.clear()
        return b"".join(frames)
