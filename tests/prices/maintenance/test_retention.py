"""Runs go a week after they were due, and not before they are accounted for."""

from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from threading import Event, Thread

import pytest
from django.db import connection, transaction

from prices.jobs.services import create_job, stop_job
from prices.maintenance.partitions import make_partitions
from prices.maintenance.retention import drop_old_runs
from prices.models import PollJob, PollRun
from tests.prices.slots_of_a_job import add_runs

pytestmark = pytest.mark.django_db
DAY = datetime(2031, 5, 6, tzinfo=UTC)
# The first moment at which all runs of DAY are over a week old.
WEEK_LATER = DAY + timedelta(days=8)
PARTITION = "poll_runs_20310506"
DAYS = """
    SELECT inhrelid::regclass::text FROM pg_inherits
    WHERE inhparent = 'poll_runs'::regclass AND inhrelid <> 'poll_runs_default'::regclass
"""


@pytest.fixture
def no_days() -> None:
    """Take the days that other tests have left out of the table, until the test's transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute(DAYS)
        for (day,) in cursor.fetchall():
            cursor.execute(f"DROP TABLE {day}")


@pytest.fixture
def job(no_days: None) -> PollJob:
    """Return a job with runs on DAY, all accounted for."""
    make_partitions(date(2031, 5, 6))
    made = create_job(symbols=["SIM-A"], interval=1, provider="simulated")
    add_runs(made, "sfk", start=DAY)
    add_runs(made, "s", start=DAY + timedelta(days=1, milliseconds=-1))
    add_runs(made, "s", start=DAY + timedelta(days=1))
    PollJob.objects.update(accounted_until=WEEK_LATER)
    return made


def test_day_goes_once_all_its_runs_are_a_week_old(job: PollJob) -> None:
    assert drop_old_runs(now=WEEK_LATER - timedelta(milliseconds=1)) == []
    assert PollRun.objects.count() == 5
    assert drop_old_runs(now=WEEK_LATER) == [PARTITION]
    assert [run.due_at for run in PollRun.objects.all()] == [DAY + timedelta(days=1)]
    assert drop_old_runs(now=WEEK_LATER) == []


def test_day_stays_while_a_job_has_slots_of_it_that_are_not_accounted_for(job: PollJob) -> None:
    """As after ten days in which nothing ran: first the slots that were polled must be found."""
    PollJob.objects.filter(id=job.id).update(accounted_until=DAY + timedelta(hours=23))
    assert drop_old_runs(now=WEEK_LATER) == []
    PollJob.objects.filter(id=job.id).update(accounted_until=DAY + timedelta(days=1))
    assert drop_old_runs(now=WEEK_LATER) == [PARTITION]


def test_clock_that_is_years_ahead_for_a_moment_costs_two_days(job: PollJob) -> None:
    for day in range(3):
        make_partitions(date(2031, 5, 1) + timedelta(days=day))
        add_runs(job, "s", start=DAY - timedelta(days=5 - day))
    years_later = DAY + timedelta(days=1000)
    PollJob.objects.update(accounted_until=years_later)
    assert drop_old_runs(now=years_later) == ["poll_runs_20310501", "poll_runs_20310502"]


def test_stopped_job_holds_nothing(job: PollJob) -> None:
    stop_job(job.id)
    PollJob.objects.filter(id=job.id).update(accounted_until=DAY)
    assert drop_old_runs(now=WEEK_LATER) == [PARTITION]


def test_day_stays_while_a_run_of_it_is_open(job: PollJob) -> None:
    add_runs(job, "c", first=100, start=DAY)
    assert drop_old_runs(now=WEEK_LATER) == []
    PollRun.objects.filter(state="claimed").update(state="abandoned", finished_at=WEEK_LATER)
    assert drop_old_runs(now=WEEK_LATER) == [PARTITION]


def test_runs_of_a_day_without_a_partition_go_too(job: PollJob) -> None:
    add_runs(job, "sc", start=DAY - timedelta(days=5))
    drop_old_runs(now=WEEK_LATER)
    left = PollRun.objects.filter(due_at__lt=DAY).values_list("state", flat=True)
    assert list(left) == ["claimed"]


@pytest.mark.django_db(transaction=True)
def test_day_that_is_being_read_stays_for_the_next_time() -> None:
    day, name = date(2000, 1, 1), "poll_runs_20000101"
    make_partitions(day)
    is_read, may_end = Event(), Event()

    def read() -> None:
        with closing(connection), transaction.atomic():
            list(PollRun.objects.all())
            is_read.set()
            may_end.wait(20)

    reader = Thread(target=read)
    reader.start()
    try:
        assert is_read.wait(20)
        assert drop_old_runs(now=WEEK_LATER) == []
    finally:
        may_end.set()
        reader.join(20)
    assert name in drop_old_runs(now=WEEK_LATER)
    _drop_empty_partitions(day)


def _drop_empty_partitions(first: date) -> None:
    names = [f"{first + timedelta(days=number):%Y%m%d}" for number in range(8)]
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE right(relname, 8) = ANY(%s)", [names])
        for (name,) in cursor.fetchall():
            cursor.execute(f"DROP TABLE IF EXISTS {name}")
