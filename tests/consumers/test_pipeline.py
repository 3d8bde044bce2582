"""Whatever comes in between, each message is written once, in its order, and offsets come after."""

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import pytest
from confluent_kafka import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers import pipeline
from consumers.pipeline import NotNowError, Pipeline
from tests.consumers.running import Messages

PARTITIONS = 3
Step: TypeAlias = tuple[str, dict[str, Any]]


class Writer:
    """A handler that holds the pipeline to what it promises: plans are written in turn, or forgotten."""

    def __init__(self) -> None:
        self.answers: list[str] = []
        self.written: dict[int, list[int]] = defaultdict(list)
        self.may_end = threading.Event()
        self._plans: list[Messages] = []
        self._is_writing = False
        self._has_failed = False

    def read(self, messages: Sequence[Message]) -> Messages:
        return Messages(messages)

    def join(self, batches: Sequence[Messages]) -> Messages:
        return Messages(message for batch in batches for message in batch)

    def plan(self, batch: Messages, *, ahead: bool) -> Callable[[], None] | None:
        assert batch
        if ahead and self._answer() == "wait":
            return None
        assert ahead or not self._plans
        self._plans.append(batch)
        return partial(self._write, batch)

    def _write(self, batch: Messages) -> None:
        assert batch is self._plans[0]
        assert not self._has_failed
        self._is_writing = True
        self.may_end.wait(5)
        self._is_writing = False
        self._plans.pop(0)
        if self._answer() == "refuse":
            # A plan that was made on this one is to be forgotten.
            self._has_failed = bool(self._plans)
            raise NotNowError("refused by the test")
        for message in batch:
            self.written[message.partition() or 0].append(message.offset() or 0)

    def _answer(self) -> str:
        return self.answers.pop() if self.answers else "yes"

    def forget(self) -> None:
        assert not self._is_writing
        self._plans, self._has_failed = [], False

    def close(self) -> None:
        self.may_end.set()


class Group:
    """A pipeline, and where its partitions stand: what was added of each, and what it says was stored."""

    def __init__(self, answers: list[str]) -> None:
        self.writer = Writer()
        self.writer.answers = answers
        self.pipeline = Pipeline(self.writer)
        self.added = dict.fromkeys(range(PARTITIONS), 0)
        self.stored = dict.fromkeys(range(PARTITIONS), 0)

    def add(self, partitions: list[int]) -> None:
        if self.pipeline.is_held:
            return
        for partition in partitions:
            self.pipeline.add([Message(partition=partition, offset=self.added[partition])])
            self.added[partition] += 1

    def step(self, *, ends: bool) -> None:
        if ends:
            self.writer.may_end.set()
        self.note(self.pipeline.step())
        self.writer.may_end.clear()

    def settle(self) -> None:
        self.writer.may_end.set()
        self.note(self.pipeline.settle())
        self.check()
        self.writer.may_end.clear()

    def drain(self) -> None:
        self.writer.may_end.set()
        self.note(self.pipeline.drain())
        self.check()
        assert self.pipeline.is_held or self.stored == self.added
        self.writer.may_end.clear()

    def drop(self, partitions: set[int]) -> None:
        self.settle()
        self.pipeline.drop(partitions)
        # They come back, and are begun where they were left.
        self.added |= {partition: self.stored[partition] for partition in partitions}

    def note(self, next_offsets: dict[int, int]) -> None:
        self.stored |= next_offsets
        for partition, offset in next_offsets.items():
            assert len(self.writer.written[partition]) >= offset

    def check(self) -> None:
        """Where nothing is being written, what was written is what is said to be stored."""
        for partition, offset in self.stored.items():
            assert self.writer.written[partition] == list(range(offset))


some = st.lists(st.integers(0, PARTITIONS - 1), max_size=9)
steps: st.SearchStrategy[Step] = st.one_of(
    some.map(lambda partitions: ("add", {"partitions": partitions})),
    st.booleans().map(lambda ends: ("step", {"ends": ends})),
    st.sets(st.integers(0, PARTITIONS - 1)).map(lambda partitions: ("drop", {"partitions": partitions})),
    st.sampled_from(["settle", "drain"]).map(lambda name: (name, {})),
)
answers = st.lists(st.sampled_from(["yes", "wait", "refuse"]), max_size=12)


@given(st.lists(steps, max_size=40), answers)
@settings(deadline=None)
def test_each_message_is_written_once_in_order_whatever_comes_in_between(
    steps: list[Step], answers: list[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "MAX_BATCH", 6)
        patch.setattr(pipeline, "FIRST_RETRY_S", 0.0)
        group = Group(answers)
        try:
            for name, arguments in steps:
                getattr(group, name)(**arguments)
            group.writer.answers = []
            group.step(ends=True)
            group.settle()
            group.drain()
            assert group.stored == group.added
        finally:
            group.writer.may_end.set()
            group.pipeline.close()
