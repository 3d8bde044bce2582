"""What a beat reads of the jobs."""

import time
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from prices.jobs.services import change_job, pause_job, resume_job, stop_job
from prices.ledger.grid import phase_of
from prices.models import PollJob
from prices.scheduling.due_heap import DueHeap
from prices.scheduling.job_sync import LOOK_EACH_S, JobSync
from tests.conftest import MakeJob
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def now() -> int:
    return time.time_ns() // 1_000_000


def jobs_read(watch: JobSync) -> set[object]:
    """Look once; return the jobs that were read from the table."""
    with CaptureQueriesContext(connection) as queries:
        watch.refresh(now())
    found: set[object] = set()
    with connection.cursor() as cursor:
        for query in queries:
            if '"changed" >=' in query["sql"]:
                cursor.execute(query["sql"])
                found |= {row[0] for row in cursor.fetchall()}
    return found


def test_first_look_reads_active_jobs_alone(make_job: MakeJob) -> None:
    # Jobs are never deleted: those that were stopped become many more.
    stop_job(make_job().id)
    pause_job(make_job(["SIM-B"]).id)
    active = make_job(["SIM-C"])
    assert jobs_read(JobSync(DueHeap())) == {active.id}


def test_later_looks_follow_every_change(make_job: MakeJob) -> None:
    heap = DueHeap()
    watch = JobSync(heap)
    paused, active = make_job(), make_job(["SIM-B"])
    pause_job(paused.id)

    def shows(job: PollJob) -> bool:
        watch.refresh(now())
        return str(job.id) in heap

    assert shows(active)
    assert not shows(paused)
    stop_job(active.id)
    resume_job(paused.id)
    wait_until(lambda: shows(paused))
    assert not shows(active)


def test_jobs_restored_from_another_cluster_are_read_once(make_job: MakeJob) -> None:
    jobs = [make_job([f"SIM-{letter}"]) for letter in "ABC"]
    # A dump keeps the numbers that transactions had where it was made.
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE poll_jobs DISABLE TRIGGER poll_jobs_note_change")
        cursor.execute("UPDATE poll_jobs SET changed = 1000000000000")
        cursor.execute("ALTER TABLE poll_jobs ENABLE TRIGGER poll_jobs_note_change")
    heap = DueHeap()
    watch = JobSync(heap)
    assert jobs_read(watch) == {job.id for job in jobs}
    time.sleep(LOOK_EACH_S)
    assert jobs_read(watch) == set()
    stop_job(jobs[0].id)
    wait_until(lambda: jobs_read(watch) == {jobs[0].id})
    assert len(heap) == 2


def test_later_look_moves_a_job_whose_symbols_changed(make_job: MakeJob) -> None:
    heap = DueHeap()
    watch = JobSync(heap)
    job = make_job(["SIM-A"], interval=60)
    watch.refresh(now())
    # A new job is due at once, too.
    heap.pop_due(now())
    before = heap.next_due()

    def has_moved() -> bool:
        watch.refresh(now())
        return heap.next_due() != before

    change_job(job.id, symbols=["SIM-B"])
    wait_until(has_moved)
    (due,) = heap.pop_due(heap.next_due() or 0)
    assert due.key.phase * timedelta(milliseconds=1) == phase_of("simulated", 60, ["SIM-B"])
