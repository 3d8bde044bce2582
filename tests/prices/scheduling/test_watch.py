"""What a beat reads of the jobs."""

import time

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from prices.jobs import pause_job, resume_job, stop_job
from prices.models import PollJob
from prices.scheduling.board import Board
from prices.scheduling.watch import JobWatch
from tests.conftest import MakeJob
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def now() -> int:
    return time.time_ns() // 1_000_000


def jobs_read(watch: JobWatch) -> set[object]:
    """Look once; give the jobs that were read from the table."""
    with CaptureQueriesContext(connection) as queries:
        watch.look(now())
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
    assert jobs_read(JobWatch(Board())) == {active.id}


def test_later_looks_follow_every_change(make_job: MakeJob) -> None:
    board = Board()
    watch = JobWatch(board)
    paused, active = make_job(), make_job(["SIM-B"])
    pause_job(paused.id)

    def shows(job: PollJob) -> bool:
        watch.look(now())
        return str(job.id) in board

    assert shows(active)
    assert not shows(paused)
    stop_job(active.id)
    resume_job(paused.id)
    wait_until(lambda: shows(paused))
    assert not shows(active)
