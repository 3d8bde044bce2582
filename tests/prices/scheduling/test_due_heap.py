"""Jobs fall due on their grids, each slot once, whatever the delays and changes."""

from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prices.database.uuid7 import EPOCH
from prices.ledger.grid import slot_at
from prices.scheduling.due_heap import LATE_MS, LATE_PART, Due, DueHeap, GroupKey

NOW = 1_800_000_000_000
DAY = 86_400_000


def key(interval_s: int = 60, phase: int = 0, *, kind: str | None = None) -> GroupKey:
    return GroupKey("poll.simulated", kind, interval_s * 1000, phase)


def run(heap: DueHeap, *, until: int, now: int = NOW, pauses: list[int] | None = None) -> list[Due]:
    """Take what is due as often as beat does, or after these pauses."""
    taken: list[Due] = []
    for pause in pauses or [50] * ((until - now) // 50):
        now += pause
        taken += heap.pop_due(now)
    return taken


@given(st.integers(1, 3600), st.integers(0, 3_599_999), st.lists(st.integers(1, 5_000_000), max_size=50))
def test_each_slot_is_due_once_whatever_the_delays(interval: int, phase: int, pauses: list[int]) -> None:
    heap, where = DueHeap(), key(interval, phase % (interval * 1000))
    heap.add("a", where, now=NOW)
    taken = run(heap, until=NOW, pauses=pauses)
    assert len({each.due for each in taken}) == len(taken)
    now = NOW
    for pause in pauses:
        now += pause
        # The latest slot was taken at the first look that came after it.
        assert where.slot_at(now) <= NOW or where.slot_at(now) in {each.due for each in taken}


@given(st.integers(1, 86_400), st.integers(0, DAY), st.integers(0, 10 * DAY))
def test_slot_is_the_one_that_workers_claim(interval: int, phase: int, after: int) -> None:
    where = key(interval, phase % (interval * 1000))
    moment = EPOCH + timedelta(milliseconds=NOW + after)
    claimed = slot_at(moment, interval, timedelta(milliseconds=where.phase))
    assert EPOCH + timedelta(milliseconds=where.slot_at(NOW + after)) == claimed


def test_no_drift_after_a_day() -> None:
    heap = DueHeap()
    heap.add("a", key(7, 3_000), now=NOW)
    taken = run(heap, until=NOW + DAY, pauses=[53] * (DAY // 53))
    dues = [each.due for each in taken]
    assert all(due % 7_000 == 3_000 for due in dues)
    assert len(dues) in {DAY // 7_000, DAY // 7_000 + 1}


def test_equal_jobs_fall_due_together_and_others_for_themselves() -> None:
    heap = DueHeap()
    for job_id, where in {"a": key(phase=5), "b": key(phase=5), "c": key(phase=6)}.items():
        heap.add(job_id, where, now=NOW)
    taken = run(heap, until=NOW + 60_000)
    assert Counter(tuple(each.job_ids) for each in taken) == {("a", "b"): 1, ("c",): 1}


def test_new_job_is_due_at_once_and_then_on_its_grid() -> None:
    heap = DueHeap()
    heap.add("a", key(3600, 10_000), now=NOW, at_once=True)
    (first,) = heap.pop_due(NOW)
    assert (first.job_ids, first.due) == (["a"], first.key.slot_at(NOW))
    assert heap.pop_due(NOW + 1000) == []
    following = heap.next_due()
    assert following is not None
    assert [each.due for each in heap.pop_due(following)] == [following]


def test_removed_job_is_never_due_again() -> None:
    heap = DueHeap()
    heap.add("a", key(), now=NOW, at_once=True)
    heap.add("b", key(), now=NOW)
    heap.remove("a")
    heap.remove("unknown")
    assert {tuple(each.job_ids) for each in run(heap, until=NOW + 120_000)} == {("b",)}
    heap.remove("b")
    assert heap.next_due() is None
    assert len(heap) == 0
    assert run(heap, until=NOW + 240_000, now=NOW + 120_000) == []


def test_job_put_again_is_due_once_a_slot() -> None:
    heap = DueHeap()
    for _ in range(3):
        heap.add("a", key(), now=NOW)
        heap.remove("a")
    heap.add("a", key(), now=NOW)
    assert len(run(heap, until=NOW + 180_000)) == 3


def test_job_moves_to_its_new_grid() -> None:
    heap = DueHeap()
    heap.add("a", key(3600), now=NOW)
    heap.add("a", key(10), now=NOW)
    assert len(run(heap, until=NOW + 100_000)) == 10


@pytest.mark.parametrize(("away_ms", "expected"), [(2_900, 1), (LATE_MS + 60_000 // LATE_PART + 1, 0)])
def test_slots_of_a_takeover_are_sent_late_and_those_of_an_outage_are_not(
    away_ms: int, expected: int
) -> None:
    heap = DueHeap()
    heap.add("a", key(phase=(NOW + 1) % 60_000), now=NOW)
    heap.restart(since=NOW, now=NOW + 1 + away_ms)
    assert len(heap.pop_due(NOW + 1 + away_ms)) == expected


def test_slot_that_was_sent_before_a_takeover_is_not_sent_again() -> None:
    heap = DueHeap()
    heap.add("a", key(phase=NOW % 60_000), now=NOW - 100)
    heap.restart(since=NOW + 1, now=NOW + 1000)
    assert heap.pop_due(NOW + 1000) == []


def test_job_that_was_new_before_a_takeover_is_due_at_once() -> None:
    heap = DueHeap()
    heap.add("long known", key(86_400), now=NOW - 10_000, at_once=True)
    heap.add("new", key(86_400), now=NOW, at_once=True)
    heap.restart(since=NOW - 1, now=NOW + 2000)
    assert [each.job_ids for each in heap.pop_due(NOW + 2000)] == [["new"]]


def test_due_slots_do_not_all_come_at_once() -> None:
    heap = DueHeap()
    for number in range(1000):
        heap.add(str(number), key(60, number * 59), now=NOW)
    taken = Counter(each.due // 1000 for each in run(heap, until=NOW + 60_000))
    assert max(taken.values()) < 30
