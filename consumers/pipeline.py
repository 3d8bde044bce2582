"""Batches on their way from the loop to the handler: one is collected while another is written.

Knows nothing of Kafka but its messages. Three batches at most are on their way: one being written, one
ready for that, one being collected.
"""

import time
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from confluent_kafka import Message

from prices.outage import Outage

Batch = TypeVar("Batch")

MAX_BATCH = 5_000
# Reached by large messages only: an event has some 200 bytes.
MAX_BATCH_BYTES = 8_000_000
# How long is waited for messages: while nothing else is to do, and while a batch is being written.
POLL_S = 0.2
COLLECT_S = 0.005
FIRST_RETRY_S = 0.1
LAST_RETRY_S = 2.0


class NotNowError(Exception):
    """The handler cannot take the batch now; the messages are kept and tried again."""


class BatchHandler(Protocol[Batch]):
    """What batches are given to: each is read in the loop's thread, and written in another."""

    def read(self, messages: Sequence[Message]) -> Batch:
        """Make of messages what `write` takes, while an earlier batch may be being written."""

    def write(self, batch: Batch) -> None:
        """Store a batch for good, each partition's messages in their order; some may come twice.

        Raises NotNowError where the same messages should come again later.
        """

    def forget(self) -> None:
        """Drop what is remembered of earlier batches: partitions have changed hands. Never during a write."""

    def close(self) -> None:
        """Let go of what is held open."""


@dataclass(frozen=True, slots=True)
class _Work(Generic[Batch]):
    """Messages, and what the handler made of them."""

    messages: list[Message]
    batch: Batch


class Pipeline(Generic[Batch]):
    """Takes messages, and gives those back that the handler has stored, in their order.

    While the handler cannot take a batch it is held: then no more messages should be added.
    """

    def __init__(self, handler: BatchHandler[Batch]) -> None:
        self._handler = handler
        self._outage = Outage(began="batch.held", ended="batch.released")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._writing: tuple[_Work[Batch], Future[None]] | None = None
        self._next: _Work[Batch] | None = None
        self._batch: list[Message] = []
        self._bytes = 0
        self._most = MAX_BATCH
        self._retry_s = FIRST_RETRY_S
        self._held_until: float | None = None

    @property
    def is_held(self) -> bool:
        """Tell whether the handler refused a batch that is to be tried again."""
        return self._held_until is not None

    @property
    def room(self) -> int:
        """How many messages the batch that is being collected may still take."""
        return 0 if self._is_full() else MAX_BATCH - len(self._batch)

    @property
    def collect_s(self) -> float:
        """How long to wait for more messages where there are some: not at all where they can be written."""
        return COLLECT_S if self._writing else 0.0

    def wait_for_room(self) -> float:
        """Give how long to wait for a message; waits itself where there is no room until a write ends."""
        if self.is_held:
            return POLL_S
        if self._writing is None:
            return 0.0 if self._next or self._batch else POLL_S
        if self._is_full():
            wait([self._writing[1]], timeout=POLL_S)
            return 0.0
        return COLLECT_S

    def add(self, messages: Sequence[Message]) -> None:
        """Take messages that come next."""
        self._batch += messages
        self._bytes += _bytes_of(messages)

    def step(self) -> list[Message]:
        """Take the result of a write that has ended, and begin the next; give the messages stored."""
        stored = self._finish_write() if self._writing and self._writing[1].done() else []
        self._begin_write()
        return stored

    def settle(self) -> list[Message]:
        """Let a write end that is under way, which the store bounds; give the messages that were stored."""
        if self._writing is None:
            return []
        wait([self._writing[1]])
        return self._finish_write()

    def drain(self) -> list[Message]:
        """Write all that was added, unless the handler refuses; give the messages that were stored."""
        stored = self.settle()
        while (self._next or self._batch) and not self.is_held:
            self._begin_write()
            stored += self.settle()
        return stored

    def drop(self, partitions: Collection[int]) -> None:
        """Forget messages of these partitions that are not written yet. Not during a write."""
        left = [*self._take_back(), *self._batch]
        self._keep([message for message in left if message.partition() not in partitions])
        if not self._batch:
            self._release()

    def close(self) -> None:
        """Let a write end that is under way, and forget the rest."""
        self._writer.shutdown()
        self._writing, self._next = None, None
        self._keep([])

    def _is_full(self) -> bool:
        return len(self._batch) >= self._most or self._bytes >= MAX_BATCH_BYTES

    def _begin_write(self) -> None:
        """Hand a batch to the writer where it is free; have the next one ready where much has come."""
        if time.monotonic() < (self._held_until or 0.0):
            return
        if self._writing is None and (self._next or self._batch):
            work, self._next = self._next or self._read_batch(), None
            self._writing = work, self._writer.submit(self._handler.write, work.batch)
        if self._next is None and self._batch and self._is_full():
            self._next = self._read_batch()

    def _read_batch(self) -> _Work[Batch]:
        messages, left = self._batch[: self._most], self._batch[self._most :]
        self._keep(left)
        return _Work(messages, self._handler.read(messages))

    def _finish_write(self) -> list[Message]:
        assert self._writing is not None
        (work, future), self._writing = self._writing, None
        try:
            future.result()
        except NotNowError as error:
            self._hold(work, str(error))
            return []
        self._most = min(self._most + self._most // 8 + 1, MAX_BATCH)
        self._release()
        return work.messages

    def _hold(self, work: _Work[Batch], reason: str) -> None:
        """Keep the messages for another try."""
        self._outage.begin(reason)
        self._keep([*work.messages, *self._take_back(), *self._batch])
        self._held_until = time.monotonic() + self._retry_s
        self._retry_s = min(self._retry_s * 2, LAST_RETRY_S)
        # What is too much for one transaction would be so for ever: the next try is half as big.
        self._most = max(len(work.messages) // 2, 1)

    def _release(self) -> None:
        self._outage.end()
        self._retry_s = FIRST_RETRY_S
        self._held_until = None

    def _keep(self, messages: list[Message]) -> None:
        self._batch = messages
        self._bytes = _bytes_of(messages)

    def _take_back(self) -> list[Message]:
        """Give the messages of the batch that was ready to be written, which then is no more."""
        ready, self._next = self._next, None
        return ready.messages if ready else []


def _bytes_of(messages: Sequence[Message]) -> int:
    return sum(len(each.value() or b"") + len(each.key() or b"") for each in messages)
