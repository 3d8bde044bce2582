"""Batches on their way from the loop to the handler: one is written, one is planned, one is collected.

Knows nothing of Kafka but its messages. They are read a thousand at a time, as soon as they come: what the
handler makes of them is smaller, and what is read at once stays in the processor's cache.
"""

import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
from confluent_kafka import Message
from numpy.typing import NDArray

from prices.outage import Outage

# As large as that only where much waits: else what has come is written as soon as the writer is free.
MAX_BATCH = 20_000
MAX_BATCH_BYTES = 8_000_000
MAX_READ = 1_000
# How long is waited for messages: while nothing else is to do, and while a batch is being written.
POLL_S = 0.2
COLLECT_S = 0.005
FIRST_RETRY_S = 0.1
LAST_RETRY_S = 2.0


class NotNowError(Exception):
    """The handler cannot take the batch now; the messages are kept and tried again."""


class Batch(Protocol):
    """What a handler makes of messages."""

    @property
    def size_bytes(self) -> int:
        """How much memory it takes by which batches should be smaller; 0 where that is next to nothing."""

    def select(self, messages: NDArray[np.bool_]) -> Self:
        """Give what it makes of those messages alone that are marked."""


AnyBatch = TypeVar("AnyBatch", bound=Batch)


class BatchHandler(Protocol[AnyBatch]):
    """What messages are given to: all but writing is done in the loop's thread."""

    def read(self, messages: Sequence[Message]) -> AnyBatch:
        """Make of messages what `write` takes, while an earlier batch may be being written."""

    def join(self, batches: Sequence[AnyBatch]) -> AnyBatch:
        """Make one batch of several, in their order."""

    def plan(self, batch: AnyBatch, *, ahead: bool) -> Callable[[], None] | None:
        """Give the write that stores a batch for good; writes are called in the order of their plans.

        `ahead` tells that the write before has not ended: then None says that this one has to wait for it. A
        write raises NotNowError where the same messages should come again later. Each partition's messages
        come in their order, and some may come twice.
        """

    def forget(self) -> None:
        """Drop what is remembered of earlier batches: partitions have changed hands, or a planned write is
        not called. Never during a write; a write that is planned may still be called.
        """

    def close(self) -> None:
        """Let go of what is held open."""


@dataclass(frozen=True, slots=True)
class _Work(Generic[AnyBatch]):
    """Messages that were read: the partition and offset of each, (n, 2), and what was made of them."""

    positions: NDArray[np.int64]
    batch: AnyBatch

    def __len__(self) -> int:
        return len(self.positions)

    def select(self, messages: NDArray[np.bool_]) -> Self:
        return type(self)(self.positions[messages], self.batch.select(messages))

    def next_offsets(self) -> dict[int, int]:
        """Give of each partition the offset that follows."""
        partitions, offsets = self.positions.T
        return {int(each): int(offsets[partitions == each][-1]) + 1 for each in np.unique(partitions)}


class Pipeline(Generic[AnyBatch]):
    """Takes messages, and tells up to where the handler has stored them: each partition's next offset.

    While the handler cannot take a batch it is held: then no more messages should be added.
    """

    def __init__(self, handler: BatchHandler[AnyBatch]) -> None:
        self._handler = handler
        self._outage = Outage(began="batch.held", ended="batch.released")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._writing: tuple[_Work[AnyBatch], Future[None]] | None = None
        self._planned: tuple[_Work[AnyBatch], Callable[[], None]] | None = None
        # What comes next: messages that were read, and those after them that this turn reads.
        self._read: list[_Work[AnyBatch]] = []
        self._messages: list[Message] = []
        self._most = MAX_BATCH
        self._retry_s = FIRST_RETRY_S
        self._held_until: float | None = None

    @property
    def is_held(self) -> bool:
        """Tell whether the handler refused a batch that is to be tried again."""
        return self._held_until is not None

    @property
    def room(self) -> int:
        """How many messages should come next, at most."""
        return 0 if self._is_full() else min(MAX_BATCH - self._waiting, MAX_READ)

    @property
    def collect_s(self) -> float:
        """How long to wait for more messages where there are some: not at all where they can be written."""
        return COLLECT_S if self._writing else 0.0

    @property
    def _waiting(self) -> int:
        return sum(map(len, self._read)) + len(self._messages)

    def wait_for_room(self) -> float:
        """Give how long to wait for a message; waits itself where there is no room until a write ends."""
        if self.is_held:
            return POLL_S
        if self._writing is None:
            return 0.0 if self._planned or self._read or self._messages else POLL_S
        if self._is_full():
            wait([self._writing[1]], timeout=POLL_S)
            return 0.0
        return COLLECT_S

    def add(self, messages: Sequence[Message]) -> None:
        """Take messages that come next."""
        self._messages += messages

    def step(self) -> dict[int, int]:
        """Take the result of a write that has ended, and begin the next; give the next offsets."""
        stored = self._finish_write() if self._writing and self._writing[1].done() else {}
        self._begin_write()
        return stored

    def settle(self) -> dict[int, int]:
        """Let a write end that is under way, which the store bounds; give the next offsets."""
        if self._writing is None:
            return {}
        wait([self._writing[1]])
        return self._finish_write()

    def drain(self) -> dict[int, int]:
        """Write all that was added, unless the handler refuses; give the next offsets."""
        stored = self.settle()
        while (self._planned or self._read or self._messages) and not self.is_held:
            self._begin_write()
            stored |= self.settle()
        return stored

    def drop(self, partitions: Collection[int]) -> None:
        """Forget messages of these partitions that are not written yet. Not during a write."""
        self._read_messages()
        self._take_back()
        works = (work.select(~np.isin(work.positions[:, 0], list(partitions))) for work in self._read)
        self._read = [work for work in works if len(work)]
        if not self._read:
            self._release()

    def close(self) -> None:
        """Let a write end that is under way, and forget the rest."""
        self._writer.shutdown()
        self._writing, self._planned = None, None
        self._read, self._messages = [], []

    def _is_full(self) -> bool:
        size_bytes = sum(work.batch.size_bytes for work in self._read)
        return self._waiting >= self._most or size_bytes >= MAX_BATCH_BYTES

    def _begin_write(self) -> None:
        """Read what has come, hand a batch to the writer where it is free, and plan the next one."""
        self._read_messages()
        if time.monotonic() < (self._held_until or 0.0):
            return
        if self._writing is None:
            self._plan(ahead=False)
            if self._planned:
                (work, write), self._planned = self._planned, None
                self._writing = work, self._writer.submit(write)
        if self._is_full():
            self._plan(ahead=True)

    def _plan(self, *, ahead: bool) -> None:
        if self._planned is None and self._read:
            work = self._take_batch()
            write = self._handler.plan(work.batch, ahead=ahead)
            if write is None:
                self._read.insert(0, work)
            else:
                self._planned = work, write

    def _read_messages(self) -> None:
        messages, self._messages = self._messages, []
        if messages:
            self._read.append(_Work(_positions(messages), self._handler.read(messages)))

    def _take_batch(self) -> _Work[AnyBatch]:
        """Take what comes next, as much as fits a batch."""
        work = self._join(self._read)
        self._read = []
        if len(work) > self._most:
            is_first = np.arange(len(work)) < self._most
            self._read = [work.select(~is_first)]
            work = work.select(is_first)
        return work

    def _join(self, works: Sequence[_Work[AnyBatch]]) -> _Work[AnyBatch]:
        positions = np.concatenate([work.positions for work in works])
        return _Work(positions, self._handler.join([work.batch for work in works]))

    def _finish_write(self) -> dict[int, int]:
        assert self._writing is not None
        (work, future), self._writing = self._writing, None
        try:
            future.result()
        except NotNowError as error:
            self._hold(work, str(error))
            return {}
        self._most = min(self._most + self._most // 8 + 1, MAX_BATCH)
        self._release()
        return work.next_offsets()

    def _hold(self, work: _Work[AnyBatch], reason: str) -> None:
        """Keep the messages for another try."""
        self._outage.begin(reason)
        self._take_back()
        self._read.insert(0, work)
        self._held_until = time.monotonic() + self._retry_s
        self._retry_s = min(self._retry_s * 2, LAST_RETRY_S)
        # What is too much for one transaction would be so for ever: the next try is half as big.
        self._most = max(len(work) // 2, 1)

    def _take_back(self) -> None:
        """Undo the plan of a batch that shall not be written as it is."""
        if self._planned:
            (work, _write), self._planned = self._planned, None
            self._read.insert(0, work)
            self._handler.forget()

    def _release(self) -> None:
        self._outage.end()
        self._retry_s = FIRST_RETRY_S
        self._held_until = None


def _positions(messages: Sequence[Message]) -> NDArray[np.int64]:
    positions = np.empty((2, len(messages)), dtype=np.int64)
    positions[0] = list(map(Message.partition, messages))  # type: ignore[assignment]  # a message has both
    positions[1] = list(map(Message.offset, messages))  # type: ignore[assignment]
    return positions.T
