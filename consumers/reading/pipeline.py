"""Batches on their way from the loop to the handler: one is written, one is prepared, one is collected.

Knows nothing of Kafka but its messages. They are read a thousand at a time, as soon as they come: what the
handler makes of them is smaller, and what is read at once stays in the processor's cache. No batch is ever
cut: where the handler cannot take one, all that is in memory is dropped, and read from Kafka again.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import datetime
from threading import Thread
from typing import Generic, Protocol, TypeVar, cast

from confluent_kafka import Message

from prices.outage_log import Outage

# As large as that only where much waits: else what has come is written as soon as the writer is free.
MAX_BATCH = 20_000
MAX_BATCH_BYTES = 8_000_000
MAX_READ = 1_000
# How long is waited for messages: while nothing else is to do, and while a batch is being written.
POLL_S = 0.2
COLLECT_S = 0.005
# The handler bounds its writes; one that takes longer than this hangs.
OVERDUE_S = 20.0
FIRST_RETRY_S = 0.1
LAST_RETRY_S = 2.0


class RetryLaterError(Exception):
    """The handler cannot take the batch now; the same messages should come again later."""


class Backoff:
    """How long to wait before the next try; the log has a line where it begins, and one where it ends."""

    def __init__(self, outage: Outage) -> None:
        self._outage = outage
        self._retry_s = FIRST_RETRY_S
        self._until = 0.0

    @property
    def is_waiting(self) -> bool:
        """Whether it is too early for the next try."""
        return time.monotonic() < self._until

    def refuse(self, reason: str) -> None:
        """Take note of a try that failed: the next one has to wait, twice as long as the last, up to 2 s."""
        self._outage.begin(reason)
        self._until = time.monotonic() + self._retry_s
        self._retry_s = min(self._retry_s * 2, LAST_RETRY_S)

    def accept(self) -> None:
        """Take note of a try that succeeded."""
        self._outage.end()
        self._retry_s, self._until = FIRST_RETRY_S, 0.0


class Batch(Protocol):
    """What a handler makes of messages."""

    @property
    def size_bytes(self) -> int:
        """How much memory it takes by which batches should be smaller; 0 where that is next to nothing."""


_T = TypeVar("_T")
AnyBatch = TypeVar("AnyBatch", bound=Batch)


class BatchHandler(Protocol[AnyBatch]):
    """What messages are given to: all but writing is done in the loop's thread."""

    def read(self, messages: Sequence[Message]) -> AnyBatch:
        """Make of messages what `write` takes, while an earlier batch may be being written."""

    def join(self, batches: Sequence[AnyBatch]) -> AnyBatch:
        """Make one batch of several, in their order."""

    def prepare(self, batch: AnyBatch, *, speculative: bool) -> Callable[[], None] | None:
        """Return the write that stores a batch for good; writes are called in the order of preparation.

        `speculative` says that the write before has not ended: then None means that this one has to wait for
        it. A write raises RetryLaterError where the same messages should come again later. Each partition's
        messages come in their order, and some may come twice.
        """

    def invalidate(self) -> None:
        """Drop what is cached of earlier batches: partitions have changed hands, or prepared writes are not
        called. Never called during a write, nor between its preparation and a write.
        """

    def recover(self, *, before: datetime, is_first: bool, is_stopped: Callable[[], bool]) -> int | None:
        """Store what is known of messages that were sent before a time and that nobody may have read.

        Return how much that was, or None where it is not known what they were. With `is_first` the group may
        be new: then there is nothing to do, and None to return, where nothing was ever stored. `is_stopped`
        is asked now and then. Raises RetryLaterError. Called while nothing is prepared or written.
        """

    def close(self) -> None:
        """Let go of what is held open."""


@dataclass(frozen=True, slots=True)
class _Work(Generic[AnyBatch]):
    """What was made of some messages: how many, and of each partition the offset that follows them."""

    messages: int
    next_offsets: Mapping[int, int]
    batch: AnyBatch


@dataclass(slots=True)
class _Write(Generic[AnyBatch]):
    """A batch that is being written; where it is abandoned, nobody asks what becomes of it."""

    work: _Work[AnyBatch]
    future: Future[None]
    began: float
    is_abandoned: bool = False


class Pipeline(Generic[AnyBatch]):
    """Takes messages, and calls `on_stored` with each partition's next offset once they are stored.

    After a RetryLaterError nothing is left in it: all messages that are not stored have to come again.
    """

    def __init__(
        self, handler: BatchHandler[AnyBatch], *, on_stored: Callable[[Mapping[int, int]], None]
    ) -> None:
        self._handler = handler
        self._on_stored = on_stored
        self._write: _Write[AnyBatch] | None = None
        self._prepared: tuple[_Work[AnyBatch], Callable[[], None]] | None = None
        # What comes next: messages that were read, and those after them that this turn reads.
        self._read: list[_Work[AnyBatch]] = []
        self._messages: list[Message] = []
        self._next_offsets: dict[int, int] = {}
        self._max_batch = MAX_BATCH
        self._must_invalidate = False

    @property
    def capacity(self) -> int:
        """How many messages should come next, at most."""
        return 0 if self._is_full() else min(self._max_batch - self._waiting, MAX_READ)

    @property
    def collect_s(self) -> float:
        """How long to wait for more messages where there are some: not at all where they can be written."""
        return COLLECT_S if self._write else 0.0

    @property
    def is_writing(self) -> bool:
        """Whether a write is under way, an abandoned one, too."""
        if self._write is not None and self._write.is_abandoned and self._write.future.done():
            self._write = None
        return self._write is not None

    @property
    def is_overdue(self) -> bool:
        """Whether a write is under way that should have ended long ago."""
        return self._write is not None and time.monotonic() - self._write.began > OVERDUE_S

    @property
    def _waiting(self) -> int:
        return sum(work.messages for work in self._read) + len(self._messages)

    def wait_for_capacity(self) -> float:
        """Return how long to wait for a message; where there is no capacity, wait here for a write to end."""
        if self._write is None:
            return 0.0 if self._prepared or self._read or self._messages else POLL_S
        if self._is_full():
            wait([self._write.future], timeout=POLL_S)
            return 0.0
        return COLLECT_S

    def add(self, messages: Sequence[Message]) -> Mapping[int, int]:
        """Take messages that come next; return of each of their partitions the offset that follows them."""
        # Of several offsets of a partition the last one stays.
        last = dict(zip(map(Message.partition, messages), map(Message.offset, messages), strict=True))
        next_offsets = {cast(int, of): cast(int, offset) + 1 for of, offset in last.items()}
        self._messages += messages
        self._next_offsets |= next_offsets
        return next_offsets

    def step(self) -> None:
        """Take the result of a write that has ended, and begin the next. Raises RetryLaterError."""
        if self.is_writing and self._write and self._write.future.done():
            self._finish_write()
        self._begin_write()

    def join(self, *, timeout_s: float) -> None:
        """Let a write end that is under way. Raises RetryLaterError, also where it takes too long."""
        if self._write is None:
            return
        wait([self._write.future], timeout=max(timeout_s, 0.0))
        if not self._write.future.done():
            raise self._refused(RetryLaterError(f"a write takes longer than {timeout_s:.1f} s"))
        if self.is_writing:
            self._finish_write()

    def flush(self, *, timeout_s: float) -> None:
        """Write all that was added. Raises RetryLaterError, also where it takes too long."""
        deadline = time.monotonic() + timeout_s
        self.join(timeout_s=timeout_s)
        while self._prepared or self._read or self._messages:
            self._begin_write()
            self.join(timeout_s=deadline - time.monotonic())

    def clear(self) -> None:
        """Drop all that is not stored, and what the handler remembers. A write under way is abandoned."""
        if self._write is not None:
            self._write.is_abandoned = True
        self._prepared, self._read, self._messages, self._next_offsets = None, [], [], {}
        self._must_invalidate = True

    def _is_full(self) -> bool:
        size_bytes = sum(work.batch.size_bytes for work in self._read)
        return self._waiting >= self._max_batch or size_bytes >= MAX_BATCH_BYTES

    def _begin_write(self) -> None:
        """Read what has come, hand a batch to the writer where it is free, and prepare the next one."""
        self._read_messages()
        if not self.is_writing:
            self._invalidate_if_due()
            self._prepare(speculative=False)
            if self._prepared:
                (work, write), self._prepared = self._prepared, None
                self._write = _Write(work, run_in_thread(write, name="writer"), time.monotonic())
        if self._is_full() and not self._must_invalidate:
            self._prepare(speculative=True)

    def _invalidate_if_due(self) -> None:
        if self._must_invalidate:
            self._handler.invalidate()
            self._must_invalidate = False

    def _prepare(self, *, speculative: bool) -> None:
        if self._prepared is None and self._read:
            work = self._join_read()
            write = self._handler.prepare(work.batch, speculative=speculative)
            if write is None:
                self._read = [work]
            else:
                self._prepared, self._read = (work, write), []

    def _read_messages(self) -> None:
        messages, self._messages = self._messages, []
        next_offsets, self._next_offsets = self._next_offsets, {}
        if messages:
            self._read.append(_Work(len(messages), next_offsets, self._handler.read(messages)))

    def _join_read(self) -> _Work[AnyBatch]:
        next_offsets: dict[int, int] = {}
        for work in self._read:
            next_offsets |= work.next_offsets
        batch = self._handler.join([work.batch for work in self._read])
        return _Work(sum(work.messages for work in self._read), next_offsets, batch)

    def _finish_write(self) -> None:
        assert self._write is not None
        write, self._write = self._write, None
        try:
            write.future.result()
        except RetryLaterError as error:
            # What is too much for one transaction would be so for ever: the next try is half as big.
            self._max_batch = max(write.work.messages // 2, 1)
            raise self._refused(error) from error
        self._max_batch = min(self._max_batch + self._max_batch // 8 + 1, MAX_BATCH)
        self._on_stored(write.work.next_offsets)

    def _refused(self, error: RetryLaterError) -> RetryLaterError:
        self.clear()
        return error


def run_in_thread(work: Callable[[], _T], *, name: str) -> Future[_T]:
    """Return what the work, in a thread of its own, comes to; the end of the process does not wait for it."""
    future: Future[_T] = Future()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - raised again by the one who asks for the result
            future.set_exception(error)
        else:
            future.set_result(result)

    Thread(target=run, name=name, daemon=True).start()
    return future
