"""Whatever comes in between, messages are written in order, none is left out, and offsets come after."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any, TypeAlias

import pytest
from confluent_kafka import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.reading import pipeline
from consumers.reading.pipeline import Pipeline, RetryLaterError
from tests.consumers.running import Messages
from tests.waiting import wait_until

PARTITIONS = 3
Step: TypeAlias = tuple[str, dict[str, Any]]


class Writer:
    """A handler that holds the pipeline to its promise: what is prepared is written in turn, or dropped."""

    def __init__(self) -> None:
        self.answers: list[str] = []
        self.written: dict[int, list[int]] = defaultdict(list)
        self.may_end = threading.Event()
        self._prepared: list[Messages] = []
        self._is_writing = False
        self._has_failed = False

    def read(self, messages: Sequence[Message]) -> Messages:
        return Messages(messages)

    def join(self, batches: Sequence[Messages]) -> Messages:
        return Messages(message for batch in batches for message in batch)

    def prepare(self, batch: Messages, *, speculative: bool) -> Callable[[], None] | None:
        assert batch
        if speculative and self._answer() == "wait":
            return None
        assert speculative or not self._prepared
        self._prepared.append(batch)
        return partial(self._write, batch)

    def _write(self, batch: Messages) -> None:
        assert batch is self._prepared[0]
        assert not self._has_failed
        self._is_writing = True
        self.may_end.wait(5)
        self._is_writing = False
        self._prepared.pop(0)
        if self._answer() == "refuse":
            # What was prepared on this one is to be dropped.
            self._has_failed = bool(self._prepared)
            raise RetryLaterError("refused by the test")
        for message in batch:
            self.written[message.partition() or 0].append(message.offset() or 0)

    def _answer(self) -> str:
        return self.answers.pop() if self.answers else "yes"

    def invalidate(self) -> None:
        assert not self._is_writing
        self._prepared, self._has_failed = [], False

    def recover(self, *, before: datetime, is_first: bool, is_stopped: Callable[[], bool]) -> int | None:
        return 0

    def close(self) -> None:
        self.may_end.set()


class Group:
    """A pipeline, and where its partitions stand: what was added of each, and what it says was stored."""

    def __init__(self, answers: list[str]) -> None:
        self.writer = Writer()
        self.writer.answers = answers
        self.stored = dict.fromkeys(range(PARTITIONS), 0)
        self.pipeline = Pipeline(self.writer, on_stored=self.note)
        self.added = dict.fromkeys(range(PARTITIONS), 0)

    def add(self, partitions: list[int]) -> None:
        messages = []
        for partition in partitions:
            messages.append(Message(partition=partition, offset=self.added[partition]))
            self.added[partition] += 1
        self.pipeline.add(messages)

    def step(self, *, ends: bool) -> None:
        if ends:
            self.writer.may_end.set()
        with self.rewinding():
            self.pipeline.step()
        self.writer.may_end.clear()

    def join(self) -> None:
        self.writer.may_end.set()
        with self.rewinding():
            self.pipeline.join(timeout_s=5)
        self.writer.may_end.clear()

    def flush(self) -> None:
        self.writer.may_end.set()
        with self.rewinding():
            self.pipeline.flush(timeout_s=5)
            assert self.stored == self.added
        self.check()
        self.writer.may_end.clear()

    def clear(self) -> None:
        """Drop what is not stored, as where partitions change hands; a write under way may still end."""
        self.pipeline.clear()
        self.rewind()

    def hang(self) -> None:
        """Wait for a write that does not end in time."""
        with self.rewinding():
            self.pipeline.join(timeout_s=0)

    def is_writing(self) -> bool:
        """Let a write that ends take effect."""
        self.step(ends=True)
        return self.pipeline.is_writing

    @contextmanager
    def rewinding(self) -> Iterator[None]:
        try:
            yield
        except RetryLaterError:
            self.rewind()

    def rewind(self) -> None:
        self.added = dict(self.stored)

    def note(self, next_offsets: Mapping[int, int]) -> None:
        self.stored |= next_offsets
        self.check()

    def check(self) -> None:
        """Compare what is said to be stored with what was written: all of it, in order; more may be there."""
        for partition, offset in self.stored.items():
            written = self.writer.written[partition]
            assert list(dict.fromkeys(written))[:offset] == list(range(offset))


some = st.lists(st.integers(0, PARTITIONS - 1), max_size=9)
steps: st.SearchStrategy[Step] = st.one_of(
    some.map(lambda partitions: ("add", {"partitions": partitions})),
    st.booleans().map(lambda ends: ("step", {"ends": ends})),
    st.sampled_from(["join", "flush", "clear", "hang"]).map(lambda name: (name, {})),
)
answers = st.lists(st.sampled_from(["yes", "wait", "refuse"]), max_size=12)


@given(st.lists(steps, max_size=40), answers)
@settings(deadline=None)
def test_messages_are_stored_in_order_whatever_comes_in_between(
    steps: list[Step], answers: list[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "MAX_BATCH", 6)
        group = Group(answers)
        try:
            for name, arguments in steps:
                getattr(group, name)(**arguments)
            group.writer.answers = []
            group.writer.may_end.set()
            wait_until(lambda: not group.is_writing())
            group.clear()
            group.add(list(range(PARTITIONS)))
            group.flush()
            assert group.stored == group.added
        finally:
            group.writer.may_end.set()


def test_abandoned_write_is_not_asked_for_its_result() -> None:
    group = Group([])
    group.add([0, 0])
    group.step(ends=False)
    group.clear()
    group.add([0])
    group.step(ends=False)
    assert group.pipeline.is_writing
    group.writer.may_end.set()
    wait_until(lambda: not group.pipeline.is_writing)
    assert group.stored[0] == 0
    group.flush()
    assert group.stored[0] == 1
    assert group.writer.written[0] == [0, 1, 0]


def test_write_that_hangs_is_overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    group = Group([])
    group.add([0])
    group.step(ends=False)
    group.hang()
    seen = [group.pipeline.is_overdue]
    monkeypatch.setattr(pipeline, "OVERDUE_S", 0.0)
    seen.append(group.pipeline.is_overdue)
    group.writer.may_end.set()
    wait_until(lambda: not group.pipeline.is_writing)
    seen.append(group.pipeline.is_overdue)
    assert seen == [False, True, False]
