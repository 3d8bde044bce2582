"""Ranges of slots against what listing each slot gives."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from prices.ledger.ranges import SlotRange, Term, merge_terms, slots_between, split_by_terms

START = datetime(2026, 11, 23, tzinfo=UTC)
MS = timedelta(milliseconds=1)
milliseconds = st.integers(0, 60_000)


def listed(slots: SlotRange) -> list[datetime]:
    return [slots.first + number * slots.step for number in range(slots.count)]


@given(milliseconds, milliseconds, st.integers(1, 7), st.integers(0, 999))
def test_slots_between_are_those_of_the_grid(
    after_ms: int, length_ms: int, interval: int, phase: int
) -> None:
    after, before = START + after_ms * MS, START + (after_ms + length_ms) * MS
    found = slots_between(after, before, interval=interval, phase=phase * MS)
    # The start lies on the grid of each interval that divides a day; 7 does not.
    epoch_ms = int(START.timestamp() * 1000)
    wanted = [
        START + number * MS
        for number in range(after_ms + 1, after_ms + length_ms)
        if (epoch_ms + number - phase) % (interval * 1000) == 0
    ]
    assert ([] if found is None else listed(found)) == wanted


@given(
    st.integers(1, 40), st.integers(500, 5000), st.lists(st.tuples(milliseconds, milliseconds), max_size=6)
)
def test_parts_are_the_slots_within_terms_and_outside(
    count: int, step_ms: int, ends: list[tuple[int, int]]
) -> None:
    edges = sorted({edge for pair in ends for edge in pair})
    terms = [
        Term(START + began * MS, START + ended * MS)
        for began, ended in zip(edges[::2], edges[1::2], strict=False)
    ]
    first = START + 10_000 * MS
    slots = SlotRange(first, first + (count - 1) * step_ms * MS, step_ms * MS)
    parts = list(split_by_terms(slots, terms))
    told = [(due, is_in_term) for part, is_in_term in parts for due in listed(part)]
    assert told == [
        (due, any(term.began_at <= due <= term.ended_at for term in terms)) for due in listed(slots)
    ]
    flags = [is_in_term for _, is_in_term in parts]
    assert all(one != other for one, other in pairwise(flags))


@given(st.lists(st.tuples(milliseconds, milliseconds).map(sorted), max_size=8))
def test_merged_terms_are_apart_and_hold_the_same_moments(times: list[list[int]]) -> None:
    terms = merge_terms((START + began * MS, START + ended * MS) for began, ended in sorted(times))
    assert all(one.ended_at < other.began_at for one, other in pairwise(terms))
    for edge in {edge for pair in times for edge in (*pair, pair[0] - 1, pair[1] + 1)}:
        moment = START + edge * MS
        assert any(term.began_at <= moment <= term.ended_at for term in terms) == any(
            began <= edge <= ended for began, ended in times
        )


def test_month_of_seconds_is_one_range() -> None:
    month = timedelta(days=30)
    found = slots_between(START, START + month, interval=1, phase=timedelta(0))
    assert found is not None
    assert found.count == 30 * 86_400 - 1
