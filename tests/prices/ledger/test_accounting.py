"""What becomes a gap, when, and for which reason."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django_celery_beat.models import PeriodicTask
from pytest_django import DjangoAssertNumQueries

from prices import tasks
from prices.jobs.services import change_job, create_job, pause_job, resume_job, stop_job
from prices.ledger import accounting
from prices.ledger import runs as claims
from prices.ledger.accounting import account_slots
from prices.ledger.beat_terms import RENEWED_WITHIN
from prices.ledger.grid import next_slot, phase_of
from prices.ledger.runs import RunOutcome, abandon_overdue_runs, claim_slots, finish
from prices.models import BeatTerm, PollGap, PollJob, PollRun, RunState
from tests.conftest import MakeJob
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db
SECOND = timedelta(seconds=1)
# A slot of every job of 10 seconds on this symbol.
START = next_slot(datetime(2026, 1, 5, tzinfo=UTC), 10, phase_of("simulated", 10, ["SIM-A"]))
DOWN = "down: no scheduler ran"
NOT_POLLED = "no worker polled it in time"


@pytest.fixture
def job() -> PollJob:
    """Return a job that is due at START and each 10 seconds from then on; a beat led when it was created."""
    return led_at_first(create_job(symbols=["SIM-A"], interval=10, provider="simulated", now=START))


def led_at_creation(job: PollJob) -> None:
    """Note that a beat led until the moment at which the job was created."""
    at_once = dict.fromkeys(("began_at", "renewed_at", "until"), job.created_at - RENEWED_WITHIN)
    BeatTerm.objects.create(holder="test", **at_once)


def led_at_first(job: PollJob) -> PollJob:
    """Note that a beat led until 5 seconds before START, when the job was created."""
    PollJob.objects.update(created_at=at(-5))
    led(-6, -5)
    return job


def at(seconds: float) -> datetime:
    return START + seconds * SECOND


def led(began: float, renewed: float) -> None:
    BeatTerm.objects.create(holder="test", began_at=at(began), renewed_at=at(renewed), until=at(renewed + 2))


def gaps() -> list[tuple[float, float, int, str]]:
    """Return the gaps as seconds from START."""
    rows = PollGap.objects.order_by("from_due")
    return [
        ((row.from_due - START) / SECOND, (row.to_due - START) / SECOND, row.slots, row.reason)
        for row in rows
    ]


def poll(job: PollJob, seconds: float) -> None:
    (claim,) = claim_slots([job.id], now=at(seconds))
    finish([RunOutcome(claim, RunState.STORED, points=1)])


def test_slots_without_a_run_are_gaps(job: PollJob) -> None:
    led(-5, 60)
    poll(job, 10)
    poll(job, 31)
    assert account_slots(now=at(56), all_jobs=True) == 3
    assert gaps() == [(0, 0, 1, NOT_POLLED), (20, 20, 1, NOT_POLLED), (40, 40, 1, NOT_POLLED)]
    job.refresh_from_db()
    assert job.accounted_until == at(40)


def test_slots_that_were_polled_are_no_gaps(job: PollJob) -> None:
    for seconds in range(0, 100, 10):
        poll(job, seconds)
    assert account_slots(now=at(105), all_jobs=True) == 0
    assert gaps() == []


def test_slot_is_open_until_the_next_one_is_due(job: PollJob) -> None:
    assert account_slots(now=at(14), all_jobs=True) == 0
    assert account_slots(now=at(15), all_jobs=True) == 1


def test_job_is_looked_at_each_half_minute(job: PollJob) -> None:
    # Its last slot that is accounted for is the one at -10 s; one at 20 s is settled at 35 s.
    assert account_slots(now=at(34.9)) == 0
    assert account_slots(now=at(35.1)) == 3


def test_slots_before_a_beat_first_led_are_no_gaps() -> None:
    led(-100, -50)
    job = create_job(symbols=["SIM-A"], interval=10, provider="simulated", now=at(3))
    account_slots(now=at(46), all_jobs=True)
    assert gaps() == []
    led(44, 60)
    account_slots(now=at(76), all_jobs=True)
    # The slots until 30 were accounted for before, the one at 40 was due before the beat led.
    assert gaps() == [(50, 60, 2, NOT_POLLED)]
    stop_job(job.id, now=at(99))
    assert gaps()[1:] == [(70, 80, 2, DOWN), (90, 90, 1, "stopped")]


def test_slot_in_which_a_job_is_created_is_no_gap() -> None:
    led(-100, 50)
    create_job(symbols=["SIM-A"], interval=10, provider="simulated", now=at(3))
    account_slots(now=at(26), all_jobs=True)
    assert gaps() == [(10, 10, 1, NOT_POLLED)]


def test_slots_outside_of_all_terms_are_down(job: PollJob) -> None:
    led(-5, 10.2)
    led(29, 30)
    led(30.6, 41)
    account_slots(now=at(200), all_jobs=True)
    assert gaps() == [(0, 10, 2, NOT_POLLED), (20, 20, 1, DOWN), (30, 40, 2, NOT_POLLED), (50, 180, 14, DOWN)]


def test_gap_goes_on_in_the_next_round(job: PollJob) -> None:
    for seconds in (35, 65, 66, 105):
        account_slots(now=at(seconds), all_jobs=True)
    assert gaps() == [(0, 90, 10, DOWN)]


def test_month_of_a_job_of_a_second_is_one_row() -> None:
    led_at_first(create_job(symbols=["SIM-A"], interval=1, provider="simulated", now=START))
    month_s = 30 * 86_400
    assert account_slots(now=at(month_s + 6 - 1), all_jobs=True) == month_s
    assert PollGap.objects.get().slots == month_s


def test_task_accounts_for_what_is_over(make_job: MakeJob) -> None:
    job = make_job(interval=60)
    led_at_creation(job)
    tasks.account_slots()
    gap = PollGap.objects.get()
    assert gap.reason == DOWN
    assert 57 <= gap.slots <= 60


def test_slots_accounted_for_by_a_clock_that_was_ahead_are_polled_in_their_time(job: PollJob) -> None:
    account_slots(now=at(500), all_jobs=True)
    poll(job, 490)
    account_slots(now=at(86_400), all_jobs=True)
    assert gaps() == [(0, 480, 49, DOWN), (500, 86_380, 8589, DOWN)]
    # The clock was set right: what is still to come is taken back.
    account_slots(now=at(125))
    assert gaps() == [(0, 110, 12, DOWN)]
    poll(job, 125)
    poll(job, 131)
    account_slots(now=at(500), all_jobs=True)
    assert gaps() == [(0, 110, 12, DOWN), (140, 480, 35, DOWN)]


def test_abandoned_run_of_a_clock_that_was_ahead_stays_a_gap(job: PollJob) -> None:
    claim_slots([job.id], now=at(490))
    PollRun.objects.update(started_at=at(0))
    abandon_overdue_runs(now=at(1000))
    account_slots(now=at(86_400), all_jobs=True)
    account_slots(now=at(125))
    assert gaps() == [(0, 110, 12, DOWN), (490, 490, 1, "abandoned: the worker ended before the poll did")]


def test_slots_of_a_clock_that_was_a_little_ahead_stay_accounted_for(job: PollJob) -> None:
    account_slots(now=at(144), all_jobs=True)
    before = gaps()
    account_slots(now=at(126))
    assert gaps() == before


def test_late_claim_of_a_slot_in_a_gap_is_refused(job: PollJob) -> None:
    account_slots(now=at(25), all_jobs=True)
    assert claim_slots([job.id], now=at(11)) == []
    assert len(claim_slots([job.id], now=at(21))) == 1


def test_new_job_is_polled_in_the_slot_it_is_created_in() -> None:
    job = create_job(symbols=["SIM-A"], interval=10, provider="simulated", now=at(7))
    assert claim_slots([job.id], now=at(-3)) == []
    assert [claim.due_at for claim in claim_slots([job.id], now=at(7.5))] == [START]


def test_pause_and_resume_are_told(job: PollJob) -> None:
    led(-5, 100)
    pause_job(job.id, now=at(12))
    assert gaps() == [(0, 0, 1, NOT_POLLED)]
    account_slots(now=at(36), all_jobs=True)
    assert gaps()[1:] == [(10, 20, 2, "paused")]
    resume_job(job.id, now=at(63))
    assert gaps()[1:] == [(10, 50, 5, "paused")]
    poll(job, 64)


def test_job_resumed_in_the_slot_of_its_pause_is_polled(job: PollJob) -> None:
    pause_job(job.id, now=at(2))
    resume_job(job.id, now=at(8))
    poll(job, 9)
    account_slots(now=at(15), all_jobs=True)
    assert gaps() == []


def test_stop_ends_what_is_due(job: PollJob) -> None:
    led(-5, 100)
    stop_job(job.id, now=at(22))
    assert gaps() == [(0, 10, 2, NOT_POLLED), (20, 20, 1, "stopped")]
    stop_job(job.id, now=at(80))
    assert account_slots(now=at(500), all_jobs=True) == 0


def test_stop_of_a_stopped_job_whose_task_was_switched_on_by_hand_finds_no_slots(job: PollJob) -> None:
    led(-5, 100)
    stop_job(job.id, now=at(2))
    before = gaps()
    PeriodicTask.objects.update(enabled=True)
    stopped = stop_job(job.id, now=at(80))
    assert gaps() == before
    assert not PeriodicTask.objects.get(poll_job=stopped).enabled


def test_stop_of_a_paused_job_leaves_it_paused_until_then(job: PollJob) -> None:
    pause_job(job.id, now=at(2))
    stop_job(job.id, now=at(22))
    assert gaps() == [(0, 20, 3, "paused")]


def test_job_switched_off_by_hand_says_so(job: PollJob) -> None:
    led(-5, 100)
    job.periodic_task.enabled = False
    job.periodic_task.save()
    account_slots(now=at(25), all_jobs=True)
    resume_job(job.id, now=at(31))
    assert gaps() == [(0, 20, 3, "switched off")]


def test_change_of_interval_cuts_off_the_current_slot(job: PollJob) -> None:
    led(-5, 100)
    poll(job, 0)
    changed = change_job(job.id, interval=7, now=at(23))
    assert gaps() == [(10, 10, 1, NOT_POLLED), (20, 20, 1, "interval changed")]
    assert claim_slots([job.id], now=at(23)) == []
    first = next_slot(at(23), 7, phase_of("simulated", 7, ["SIM-A"]))
    assert [claim.due_at for claim in claim_slots([job.id], now=at(23) + 7 * SECOND)] == [first]
    task = changed.periodic_task
    assert (changed.interval, task.interval.every, task.expire_seconds) == (7, 7, None)


def test_change_of_symbols_cuts_off_the_current_slot(job: PollJob) -> None:
    led(-5, 100)
    poll(job, 0)
    change_job(job.id, symbols=["SIM-B", "SIM-A"], now=at(23))
    assert gaps() == [(10, 10, 1, NOT_POLLED), (20, 20, 1, "symbols changed")]
    first = next_slot(at(23), 10, phase_of("simulated", 10, ["SIM-A", "SIM-B"]))
    claims_after = claim_slots([job.id], now=at(23)) + claim_slots([job.id], now=at(33))
    assert [(claim.due_at, claim.job.symbols) for claim in claims_after] == [(first, ["SIM-B", "SIM-A"])]


def test_change_to_the_same_changes_nothing(job: PollJob) -> None:
    change_job(job.id, interval=10, symbols=["SIM-A"], now=at(23))
    assert gaps() == []
    poll(job, 23)


def test_slot_claimed_by_a_clock_ahead_belongs_to_the_old_grid(job: PollJob) -> None:
    poll(job, 0)
    poll(job, 10)
    change_job(job.id, interval=1, now=at(9.9))
    account_slots(now=at(20), all_jobs=True)
    phase = phase_of("simulated", 1, ["SIM-A"])
    assert gaps()[0][0] == (next_slot(at(10), 1, phase) - START) / SECOND


def test_abandoned_run_is_a_gap(job: PollJob) -> None:
    for seconds in (0, 10, 20):
        claim_slots([job.id], now=at(seconds))
    account_slots(now=at(25), all_jobs=True)
    for seconds in (10, 0, 20):
        PollRun.objects.filter(due_at=at(seconds)).update(started_at=at(0))
        assert abandon_overdue_runs(now=at(1000)) == 1
    assert gaps() == [(0, 20, 3, "abandoned: the worker ended before the poll did")]


def test_abandoned_runs_of_a_former_interval_are_no_range_of_the_new_one(job: PollJob) -> None:
    claim_slots([job.id], now=at(0))
    poll(job, 10)
    claim_slots([job.id], now=at(20))
    change_job(job.id, interval=20, now=at(23))
    PollRun.objects.update(started_at=at(0))
    assert abandon_overdue_runs(now=at(1000)) == 2
    # As one range of 20 s they would hold the slot that was polled.
    assert [gap[:3] for gap in gaps()] == [(0, 0, 1), (20, 20, 1)]


def test_runs_abandoned_at_once_are_one_gap(job: PollJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "ABANDONED_AT_A_TIME", 2)
    account_slots(now=at(15), all_jobs=True)
    for seconds in range(10, 60, 10):
        claim_slots([job.id], now=at(seconds))
    PollRun.objects.update(started_at=at(0))
    assert abandon_overdue_runs(now=at(1000)) == 5
    assert gaps()[1:] == [(10, 50, 5, "abandoned: the worker ended before the poll did")]


def test_accounting_beside_another_does_nothing(job: PollJob) -> None:
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(hashtext(%s))", [accounting.ACCOUNTING_LOCK])
            assert account_slots(now=at(100), all_jobs=True) == 0
            cursor.execute("SELECT pg_advisory_unlock(hashtext(%s))", [accounting.ACCOUNTING_LOCK])
    finally:
        other.close()
    assert account_slots(now=at(100), all_jobs=True) == 9


def test_many_jobs_cost_a_handful_of_statements(
    django_assert_max_num_queries: DjangoAssertNumQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [
        create_job(symbols=[f"SIM-{number}"], interval=10, provider="simulated", now=START)
        for number in range(30)
    ]
    # The lock, on and off, and three looks at the time to come; for each 20 jobs at most eight, and their
    # transaction's beginning and end.
    monkeypatch.setattr(accounting, "JOBS_AT_A_TIME", 20)
    led(-1, 0)
    claim_slots([job.id for job in jobs[::2]], now=START)
    with django_assert_max_num_queries(2 + 3 + 2 * 10):
        account_slots(now=at(100), all_jobs=True)
    assert not PollJob.objects.filter(accounted_until__lt=at(75)).exists()
    assert PollGap.objects.count() == 30


@contextmanager
def beside(call: Callable[[], Any]) -> Iterator[list[Any]]:
    """Run a call in a thread while the block holds a lock that it waits for; give what it returns."""
    result: list[Any] = []

    def run() -> None:
        try:
            result.append(call())
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    with transaction.atomic():
        PollJob.objects.select_for_update().get()
        thread.start()
        wait_until(_somebody_waits, what="nobody waits for the job's row")
        yield result
    thread.join()


def _somebody_waits() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(cursor.fetchone()[0])


@pytest.mark.django_db(transaction=True)
def test_claim_that_waited_for_the_accounting_is_refused(job: PollJob) -> None:
    with beside(lambda: claim_slots([job.id], now=at(1))) as claimed:
        account_slots(now=at(15), all_jobs=True)
    assert claimed == [[]]
    assert gaps() == [(0, 0, 1, DOWN)]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("change", [{"interval": 7}, {"symbols": ["SIM-B"]}, {"symbols": ["SIM-A", "SIM-B"]}])
def test_claim_that_waited_for_a_change_is_refused(job: PollJob, change: dict[str, Any]) -> None:
    # By a clock ahead: the slot at 30 s comes after the change.
    with beside(lambda: claim_slots([job.id], now=at(31))) as claimed:
        change_job(job.id, **change, now=at(29))
    assert claimed == [[]]
