"""Which jobs are due when: a heap of grids, each with the jobs that fall due on it together. Pure.

All times are milliseconds since the epoch: grids are exact in them, so nothing drifts.
"""

import heapq
from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from prices.ledger.market_hours import Calendars

# A slot that came while nobody led is sent late if it is no older than this, and a part of its interval:
# what a takeover costs is caught up, but after an outage not everything is sent at once.
LATE_MS = 3_000
LATE_PART = 20


@dataclass(frozen=True, slots=True)
class GroupKey:
    """When and where a job is polled: jobs of equal keys are polled together.

    `kind` tells jobs apart that fall due together but are asked for one after the other; None: they may share
    a message with any other of the queue. Interval and phase are in ms. `calendars`: it is polled in the
    hours of these markets alone; None: at each slot.
    """

    queue: str
    kind: Hashable
    interval: int
    phase: int
    calendars: Calendars | None = None

    def slot_at(self, now: int) -> int:
        """Return the latest slot that is not after `now`."""
        return now - (now - self.phase) % self.interval


@dataclass(frozen=True, slots=True)
class Due:
    """Jobs of one key whose slot has come."""

    key: GroupKey
    job_ids: list[str]
    due: int


@dataclass(slots=True, eq=False)
class _Group:
    key: GroupKey
    jobs: dict[str, None] = field(default_factory=dict)
    # Of its entries in the heap this one counts.
    entry: int = -1


class SlotHours(Protocol):
    """Tells which slots are sent."""

    def have_slot(self, key: GroupKey, due: int) -> bool:
        """Return whether a slot is sent."""

    def next_slot(self, key: GroupKey, due: int) -> int:
        """Return the first slot after `due` that is sent, or an earlier one that is to be looked at then."""


class EachSlot:
    """Sends each slot."""

    def have_slot(self, key: GroupKey, due: int) -> bool:
        """Return that it is sent."""
        return True

    def next_slot(self, key: GroupKey, due: int) -> int:
        """Return the one that follows."""
        return due + key.interval


class DueHeap:
    """The jobs that are polled, by the time of their next slot."""

    def __init__(self, hours: SlotHours | None = None) -> None:
        self._hours: SlotHours = hours or EachSlot()
        self._groups: dict[GroupKey, _Group] = {}
        self._keys: dict[str, GroupKey] = {}
        self._heap: list[tuple[int, int, _Group]] = []
        self._at_once: dict[str, int] = {}
        self._entries = count()

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._keys

    def add(self, job_id: str, key: GroupKey, *, now: int, at_once: bool = False) -> None:
        """Add a job, or move it: its next slot is the first after `now`, and the one of now if `at_once`."""
        if self._keys.get(job_id) != key:
            self.remove(job_id)
            self._keys[job_id] = key
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = _Group(key)
                self._push(group, self._hours.next_slot(key, key.slot_at(now)))
            group.jobs[job_id] = None
        if at_once:
            self._at_once[job_id] = now

    def remove(self, job_id: str) -> None:
        """Take a job off, if it is there."""
        key = self._keys.pop(job_id, None)
        self._at_once.pop(job_id, None)
        if key is not None:
            group = self._groups[key]
            del group.jobs[job_id]
            if not group.jobs:
                # Its entry in the heap goes when its time comes.
                group.entry = -1
                del self._groups[key]

    def pop_due(self, now: int) -> list[Due]:
        """Return the jobs whose slot has come, each group once, and those that were to be polled at once."""
        first: dict[GroupKey, list[str]] = {}
        for job_id in self._at_once:
            first.setdefault(self._keys[job_id], []).append(job_id)
        self._at_once = {}
        due = [
            Due(key, job_ids, key.slot_at(now))
            for key, job_ids in first.items()
            if self._hours.have_slot(key, key.slot_at(now))
        ]
        while self._heap and self._heap[0][0] <= now:
            _time, entry, group = heapq.heappop(self._heap)
            if group.entry == entry:
                latest = group.key.slot_at(now)
                if self._hours.have_slot(group.key, latest):
                    due.append(Due(group.key, list(group.jobs), latest))
                self._push(group, self._hours.next_slot(group.key, latest))
        return due

    def next_due(self) -> int | None:
        """Return when the next slot comes; None: there are no jobs."""
        while self._heap and self._heap[0][2].entry != self._heap[0][1]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def restart(self, *, since: int, now: int) -> None:
        """Begin to lead: the slots that came after `since` are due, unless they are too old to be sent late.

        So are the jobs that were to be polled at once since then.
        """
        self._at_once = {job_id: at for job_id, at in self._at_once.items() if at > since}
        self._heap = []
        for group in self._groups.values():
            first = max(since, now - LATE_MS - group.key.interval // LATE_PART)
            before = group.key.slot_at(min(first, now))
            group.entry = next(self._entries)
            self._heap.append((self._hours.next_slot(group.key, before), group.entry, group))
        heapq.heapify(self._heap)

    def _push(self, group: _Group, time: int) -> None:
        group.entry = next(self._entries)
        heapq.heappush(self._heap, (time, group.entry, group))
