"""The ledger of a job: ranges of slots without a price, and counts of what became of all."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from prices.jobs.services import create_job
from prices.ledger.reports import MissedRange, SlotCounts, count_last_day, count_slots, missed_slots, runs_of
from prices.models import PollGap, PollJob, PollRun
from tests.conftest import MakeJob
from tests.examples import examples
from tests.prices.slots_of_a_job import START, add_gap, add_runs, slot

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)


def ranges(
    job: PollJob, first: int = 0, end: int = 1000, *, limit: int = 100
) -> list[tuple[int, int, int, str]]:
    """Return the ranges of a window of slots, each as its first and last slot, their count and its kind."""
    found = missed_slots(job, since=slot(first), until=slot(end), limit=limit)
    return [(number(each.from_due), number(each.to_due), each.slots, each.kind) for each in found]


def number(due_at: datetime) -> int:
    seconds = (due_at - START).total_seconds()
    assert seconds == int(seconds)
    return int(seconds)


def test_consecutive_slots_of_one_reason_are_one_range(make_job: MakeJob) -> None:
    job = make_job()
    add_runs(job, "ssffffskkks")
    assert ranges(job) == [(7, 9, 3, "skipped"), (2, 5, 4, "failed")]
    (skipped, failed) = missed_slots(job, since=slot(0), until=slot(100), limit=9)
    assert skipped.reason == "finnhub: budget: used up (60 requests a minute)"
    assert failed == MissedRange(slot(2), slot(5), 4, "finnhub: upstream_error", "failed")


def test_another_reason_begins_another_range(make_job: MakeJob) -> None:
    job = make_job()
    add_runs(job, "ff")
    add_runs(job, "ff", first=2, reason="finnhub: timeout")
    add_runs(job, "kk", first=4, reason="finnhub: timeout")
    assert ranges(job) == [(4, 5, 2, "skipped"), (2, 3, 2, "failed"), (0, 1, 2, "failed")]


def test_slots_that_nobody_noted_are_not_bridged(make_job: MakeJob) -> None:
    job = make_job()
    add_runs(job, "ff.ff")
    assert ranges(job) == [(3, 4, 2, "failed"), (0, 1, 2, "failed")]


def test_gaps_and_runs_are_one_list(make_job: MakeJob) -> None:
    job = make_job()
    add_runs(job, "ff...ffs")
    add_gap(job, 2, 4)
    add_gap(job, 8, 8, "paused")
    assert ranges(job) == [(8, 8, 1, "gap"), (5, 6, 2, "failed"), (2, 4, 3, "gap"), (0, 1, 2, "failed")]


def test_abandoned_slot_is_there_once_as_a_gap(make_job: MakeJob) -> None:
    job = make_job()
    add_runs(job, "sas")
    add_gap(job, 1, 1, "abandoned: the worker ended before the poll did")
    assert ranges(job) == [(1, 1, 1, "gap")]
    counts = count_slots(job, since=slot(0), until=slot(3))
    assert (counts.stored, counts.in_gaps, counts.slots) == (2, 1, 3)


def test_ranges_are_cut_to_the_window(make_job: MakeJob) -> None:
    job = make_job()
    add_gap(job, 0, 99)
    add_runs(job, "f" * 100, first=100)
    assert ranges(job, 90, 110) == [(100, 109, 10, "failed"), (90, 99, 10, "gap")]
    assert ranges(job, 40, 60) == [(40, 59, 20, "gap")]
    between = slot(40) + timedelta(microseconds=1)
    (only,) = missed_slots(job, since=between, until=slot(43), limit=9)
    assert (number(only.from_due), number(only.to_due), only.slots) == (41, 42, 2)


def test_window_between_two_slots_is_empty(make_job: MakeJob) -> None:
    job = make_job()
    add_gap(job, 0, 9)
    add_runs(job, "f", first=10)
    for after in (3, 10):
        since = slot(after) + timedelta(microseconds=1)
        until = since + timedelta(milliseconds=500)
        assert missed_slots(job, since=since, until=until, limit=9) == []
        assert count_slots(job, since=since, until=until).slots == 0


def test_other_jobs_do_not_show(make_job: MakeJob) -> None:
    job, other = make_job(), make_job()
    add_runs(other, "fks")
    add_gap(other, 3, 5)
    assert ranges(job) == []
    assert count_slots(job, since=slot(0), until=slot(9)).slots == 0


def test_runs_before_the_interval_grew_are_not_bridged_over_gaps_or_prices(make_job: MakeJob) -> None:
    job = make_job(interval=60)
    add_runs(job, "ff.ffsff")
    add_gap(job, 2, 2)
    expected = [(6, 7, 2, "failed"), (3, 4, 2, "failed"), (2, 2, 1, "gap"), (0, 1, 2, "failed")]
    assert ranges(job) == expected


def test_pages_give_each_range_once(make_job: MakeJob) -> None:
    job = make_job()
    add_runs(job, "fskkssfffs....ks")
    add_gap(job, 10, 13)
    whole = ranges(job)
    assert len(whole) == 5
    paged, end = [], 1000
    while page := ranges(job, 0, end, limit=2):
        paged += page
        end = page[-1][0]
    assert paged == whole


@hypothesis_settings(max_examples=examples(40))
@given(
    states=st.text("sshffkkgx.", max_size=60),
    window=st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted),
)
def test_ranges_and_counts_agree_with_each_slot(db: None, states: str, window: list[int]) -> None:
    """`g` and `x` are slots in gaps of two reasons."""
    job = create_job(symbols=["SIM-A"], interval=1, provider="simulated")
    add_runs(job, states.translate(str.maketrans("gx", "..")))
    for letter in "gx":
        for n in range(len(states)):
            begins = states[n] == letter and (n == 0 or states[n - 1] != letter)
            if begins:
                length = len(states[n:]) - len(states[n:].lstrip(letter))
                add_gap(job, n, n + length - 1, letter)
    first, end = window
    seen = states[first:end]
    without = {first + n: each for n, each in enumerate(seen) if each in "fkgx"}
    found = ranges(job, first, end) if first < end else []
    slots = [n for low, high, _, _ in found for n in range(low, high + 1)]
    assert sorted(slots) == sorted(without)
    # As few ranges as there can be.
    assert len(found) == sum(without.get(n - 1) != each for n, each in without.items())
    counts = count_slots(job, since=slot(first), until=slot(end))
    assert counts.in_gaps == seen.count("g") + seen.count("x")
    assert (counts.stored, counts.shared) == (seen.count("s"), seen.count("h"))
    assert (counts.failed, counts.skipped) == (seen.count("f"), seen.count("k"))
    PollRun.objects.filter(job=job).delete()
    PollGap.objects.filter(job=job).delete()


def test_counts_of_the_last_day_leave_out_what_is_older(make_job: MakeJob) -> None:
    job = make_job(interval=3600)
    now = datetime.now(UTC).replace(minute=59, second=0, microsecond=0)
    start = now.replace(minute=0) - timedelta(hours=29)
    add_runs(job, "s" * 12 + "kkff" + "h" * 12 + ".c", interval=3600, start=start)
    counts = count_last_day(job, now=now)
    assert counts == SlotCounts(stored=6, shared=12, failed=2, skipped=2, in_gaps=0, market_closed=0)
    add_gap(job, -100, -1, "paused", interval=3600, start=start)
    add_gap(job, 28, 28, interval=3600, start=start)
    counts = count_last_day(job, now=now)
    assert (counts.in_gaps, counts.slots) == (1, 23)
    assert counts.success_rate == 18 / 23


def test_success_rate_without_slots_is_none() -> None:
    assert SlotCounts(0, 0, 0, 0, 0, 9).success_rate is None
    assert SlotCounts(0, 0, 1, 0, 0, 9).success_rate == 0


def test_runs_are_chosen_by_time_and_state(make_job: MakeJob) -> None:
    job = make_job()
    add_runs(job, "sfkhca")
    chosen = runs_of(job, since=slot(1), until=slot(5), states=["failed", "claimed"])
    assert [run.due_at for run in chosen] == [slot(4), slot(1)]
    assert runs_of(job).count() == 6
    shifted = timedelta(microseconds=1)
    assert [run.due_at for run in runs_of(job, since=slot(3) + shifted, until=slot(4) + shifted)] == [slot(4)]


def test_runs_of_the_remotest_times_are_none(make_job: MakeJob) -> None:
    job = make_job()
    add_runs(job, "s")
    last = datetime.max.replace(tzinfo=UTC)
    assert runs_of(job, since=datetime.min.replace(tzinfo=UTC), until=last).count() == 1
    assert runs_of(job, since=last).count() == 0


def test_a_page_of_runs_is_read_by_the_index(make_job: MakeJob) -> None:
    jobs = [make_job() for _ in range(3)]
    for job in jobs:
        add_runs(job, "s" * 2000)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE poll_runs")
    plan = runs_of(jobs[1], until=slot(1500))[:100].explain(analyze=True, costs=False)
    assert "Index Scan Backward" in plan
    assert "job_id_id_idx" in plan or "poll_runs_default_job_id_id_idx" in plan
    assert "Rows Removed by Filter" not in plan
    assert "Sort" not in plan


def test_each_answer_takes_one_query(make_job: MakeJob) -> None:
    job = make_job()
    with CaptureQueriesContext(connection) as queries:
        count_slots(job, since=START, until=START + DAY)
        missed_slots(job, since=START, until=START + DAY, limit=9)
    assert len(queries) == 2
