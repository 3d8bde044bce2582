"""Ranges of slots, by arithmetic: a month of a job that is polled each second costs what a minute does."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain, pairwise

from prices.ledger.grid import next_slot, slot_at

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class SlotRange:
    """Consecutive slots, from the first to the last of them, `step` apart."""

    first: datetime
    last: datetime
    step: timedelta

    @property
    def count(self) -> int:
        """Return the number of slots."""
        return (self.last - self.first) // self.step + 1

    def part(self, start: int, stop: int) -> "SlotRange":
        """Return the slots from number `start`, counted from 0, to the one before `stop`."""
        return SlotRange(self.first + start * self.step, self.first + (stop - 1) * self.step, self.step)

    def from_on(self, moment: datetime | None) -> "SlotRange | None":
        """Return the slots due at this moment or later; None where there are none, or for no moment."""
        if moment is None or moment > self.last:
            return None
        first = max(-((self.first - moment) // self.step), 0)
        return self.part(first, self.count)

    def is_followed_by(self, other: "SlotRange") -> bool:
        """Return whether both are one range, the other behind this one."""
        return self.step == other.step and self.last + self.step == other.first

    def with_following(self, other: "SlotRange") -> "SlotRange":
        """Return both as one range."""
        return SlotRange(self.first, other.last, self.step)


@dataclass(frozen=True, slots=True)
class Term:
    """A time in which somebody sent what was due."""

    began_at: datetime
    ended_at: datetime


def slots_between(after: datetime, before: datetime, *, interval: int, phase: timedelta) -> SlotRange | None:
    """Return the slots after one moment and before another, None where there are none."""
    first = next_slot(after, interval, phase)
    last = slot_at(before - _MICROSECOND, interval, phase)
    return SlotRange(first, last, timedelta(seconds=interval)) if first <= last else None


def split_by_terms(slots: SlotRange, terms: Sequence[Term]) -> Iterator[tuple[SlotRange, bool]]:
    """Yield the range in parts, in order: those due within a term, and those due outside of each.

    The terms are in order and do not overlap. Parts that follow each other differ.
    """
    edges = [0, *chain.from_iterable(_numbers_within(slots, terms)), slots.count]
    for index, (start, stop) in enumerate(pairwise(edges)):
        if start < stop:
            yield slots.part(start, stop), index % 2 == 1


def merge_terms(times: Iterable[tuple[datetime, datetime]]) -> list[Term]:
    """Return these beginnings and ends, in order of the beginnings, as terms that do not touch."""
    terms: list[Term] = []
    for began_at, ended_at in times:
        if terms and began_at <= terms[-1].ended_at:
            terms[-1] = Term(terms[-1].began_at, max(terms[-1].ended_at, ended_at))
        else:
            terms.append(Term(began_at, ended_at))
    return terms


def _numbers_within(slots: SlotRange, terms: Sequence[Term]) -> list[tuple[int, int]]:
    """Return which slots, by number from 0, lie within terms: from the first to behind the last, in order."""
    found: list[tuple[int, int]] = []
    for term in terms[bisect_left(terms, slots.first, key=lambda term: term.ended_at) :]:
        if term.began_at > slots.last:
            break
        start = max(-((slots.first - term.began_at) // slots.step), 0)
        stop = min((term.ended_at - slots.first) // slots.step + 1, slots.count)
        if start >= stop:
            continue
        if found and found[-1][1] == start:
            start = found.pop()[0]
        found.append((start, stop))
    return found
