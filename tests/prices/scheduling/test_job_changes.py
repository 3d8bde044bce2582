"""Changed jobs are seen once each, in whatever order their transactions commit."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from django.db import connection

from prices.jobs.services import pause_job
from prices.models import PollJob
from prices.scheduling.job_changes import JobChanges
from tests.conftest import MakeJob

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def changes() -> JobChanges:
    made = JobChanges(PollJob.objects.all)
    made.read()
    return made


@contextmanager
def other_connection() -> Iterator[psycopg.Connection]:
    connection.ensure_connection()
    with psycopg.connect(connection.connection.info.dsn) as other:
        yield other


def test_first_look_gives_every_job(make_job: MakeJob) -> None:
    ids = {make_job().id, make_job().id}
    assert {job.id for job in JobChanges(PollJob.objects.all).read()} == ids


def test_only_what_changed_is_given_and_once(changes: JobChanges, make_job: MakeJob) -> None:
    first, second = make_job(), make_job()
    assert {job.id for job in changes.read()} == {first.id, second.id}
    assert changes.read() == []
    pause_job(second.id)
    assert [(job.id, job.status) for job in changes.read()] == [(second.id, "paused")]
    assert changes.read() == []


def test_what_a_poll_notes_is_no_change(changes: JobChanges, make_job: MakeJob) -> None:
    job = make_job()
    changes.read()
    PollJob.objects.filter(id=job.id).update(last_error="none", failures=1, status="active")
    assert changes.read() == []


@pytest.mark.parametrize(
    "change",
    [
        {"interval": 9},
        {"symbols": ["SIM-B"]},
        {"provider": None},
        {"served_by": "simulated"},
        {"status": "stopped"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_change_that_no_code_of_ours_made_is_seen(
    changes: JobChanges, make_job: MakeJob, change: dict[str, object]
) -> None:
    job = make_job()
    changes.read()
    PollJob.objects.filter(id=job.id).update(**change)
    assert [job.id for job in changes.read()] == [job.id]


def test_transaction_that_began_first_and_ended_last_is_not_missed(
    changes: JobChanges, make_job: MakeJob
) -> None:
    early, late = make_job(), make_job()
    changes.read()
    with other_connection() as other:
        other.execute("UPDATE poll_jobs SET interval = 5 WHERE id = %s", [early.id])
        pause_job(late.id)
        assert [job.id for job in changes.read()] == [late.id]
        assert changes.read() == []
        other.commit()
    assert [job.id for job in changes.read()] == [early.id]
    assert changes.read() == []
