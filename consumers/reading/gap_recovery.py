"""Messages that nobody has read and nobody will: before the position at which a partition is begun.

The handler stores what it knows of them before anything else is written. That may take longer than Kafka
waits for a member of the group, so it is done in a thread, while the loop serves rebalances: a member that
was put out meanwhile would find the same partitions, and begin anew, each time.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from typing import Any

from confluent_kafka import TopicPartition

from consumers.reading.group import AFTER_ALL, Start, UnreadBecause, oldest_time, unread_log
from consumers.reading.pipeline import BatchHandler, run_in_thread

# The handler asks so often whether it is to stop, or it hangs.
OVERDUE_S = 150.0


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was done about a gap: the positions behind it, and how many rows were added; None: not known."""

    gap: UnreadBecause
    positions: Sequence[TopicPartition]
    rows: int | None


class GapRecovery:
    """The partitions of which nobody may have read what is before, until that is made good."""

    def __init__(self, handler: BatchHandler[Any], *, is_stopped: Callable[[], bool]) -> None:
        self._handler = handler
        self._is_stopped = is_stopped
        self._gaps: dict[int, Start] = {}
        self._under_way: tuple[Mapping[int, Start], Future[int | None]] | None = None
        self._asked_at = 0.0

    @property
    def is_needed(self) -> bool:
        """Return whether nothing may be written yet."""
        return bool(self._gaps) or self._under_way is not None

    @property
    def is_overdue(self) -> bool:
        """Return whether the handler has given no sign of life for long."""
        return self._under_way is not None and time.monotonic() - self._asked_at > OVERDUE_S

    def add(self, starts: Iterable[Start]) -> None:
        """Take note of partitions that are to be begun; most have no gap."""
        self._gaps |= {start.position.partition: start for start in starts if start.gap}

    def drop(self, partitions: Iterable[int]) -> None:
        """Leave partitions to whoever has them now."""
        for partition in partitions:
            self._gaps.pop(partition, None)

    def step(self) -> list[Recovered] | None:
        """Begin the recovery, or look after it; return what was done once it has ended, else None.

        Raises RetryLaterError where it has to be begun again later, LogTrimmedError where nobody knows what
        the messages were, and KafkaException where Kafka does not tell of which time they are.
        """
        if self._under_way is None:
            self._under_way = dict(self._gaps), self._begin()
        gaps, future = self._under_way
        if not future.done():
            return None
        self._under_way = None
        rows = future.result()
        ours = {number: start for number, start in gaps.items() if self._gaps.get(number) is start}
        by_gap = _by_gap(ours)
        if rows is None and by_gap[UnreadBecause.TRIMMED]:
            raise unread_log(by_gap[UnreadBecause.TRIMMED])
        self.drop(ours)
        if rows is None and not _by_gap(gaps)[UnreadBecause.MOVED]:
            # The first start of all.
            return []
        return [Recovered(gap, positions, rows) for gap, positions in by_gap.items() if positions]

    def close(self, *, timeout_s: float) -> None:
        """Wait a while for a recovery that is under way: it ends soon once the loop is stopped."""
        if self._under_way is not None:
            wait([self._under_way[1]], timeout=timeout_s)

    def _begin(self) -> Future[int | None]:
        by_gap = _by_gap(self._gaps)
        trimmed = by_gap[UnreadBecause.TRIMMED]
        self._asked_at = time.monotonic()
        recover = partial(
            self._handler.recover,
            before=oldest_time(trimmed) if trimmed else AFTER_ALL,
            is_first=not trimmed and not by_gap[UnreadBecause.MOVED],
            is_stopped=self._answer_whether_stopped,
        )
        return run_in_thread(recover, name="recovery")

    def _answer_whether_stopped(self) -> bool:
        self._asked_at = time.monotonic()
        return self._is_stopped()


def _by_gap(starts: Mapping[int, Start]) -> dict[UnreadBecause, list[TopicPartition]]:
    return {gap: [each.position for each in starts.values() if each.gap is gap] for gap in UnreadBecause}
