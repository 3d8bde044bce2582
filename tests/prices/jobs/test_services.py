import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask, PeriodicTasks
from pytest_django import Settings
from rest_framework.test import APIClient

from prices.jobs.blockers import blockers
from prices.jobs.services import (
    JobNotFoundError,
    JobStoppedError,
    choose_provider,
    pause_job,
    resume_job,
    stop_job,
)
from prices.ledger.runs import RunOutcome, claim_slots, finish
from prices.models import PollJob, PollRun, RunState
from tests.conftest import ChangeJob, MakeJob


def test_job_created_has_a_periodic_task_of_its_own(make_job: MakeJob) -> None:
    job = make_job(["SIM-A", "SIM-B"], interval=60)
    task = PeriodicTask.objects.get(poll_job=job)
    assert task.task == "prices.tasks.poll_job"
    assert json.loads(task.args) == [str(job.id)]
    assert (task.interval.every, task.interval.period) == (60, "seconds")
    assert task.queue == "poll.simulated"
    assert task.enabled
    assert job.id.version == 7


def test_job_created_and_changed_waits_for_no_other(make_job: MakeJob) -> None:
    """As it would for the one row of django-celery-beat that marks changes."""
    pause_job(make_job().id)
    assert PeriodicTasks.last_change() is None


@pytest.mark.django_db(transaction=True)
def test_jobs_created_at_once_share_one_interval_row() -> None:
    def create(number: int) -> int:
        try:
            body = {"symbols": [f"SIM-{number}"], "interval": 77, "provider": "simulated"}
            return APIClient().post("/prices/poll", body, format="json").status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(50) as pool:
        assert set(pool.map(create, range(50))) == {202}
    assert PollJob.objects.count() == 50
    assert IntervalSchedule.objects.filter(every=77).count() == 1


def test_job_paused_and_resumed_switches_its_task(make_job: MakeJob) -> None:
    job = make_job()
    assert pause_job(job.id).status == "paused"
    assert not PeriodicTask.objects.get(poll_job=job).enabled
    assert resume_job(job.id).status == "active"
    assert PeriodicTask.objects.get(poll_job=job).enabled


def test_job_stopped_twice_stays_stopped(make_job: MakeJob) -> None:
    job = make_job()
    assert stop_job(job.id).status == "stopped"
    assert stop_job(job.id).status == "stopped"
    assert not PeriodicTask.objects.get(poll_job=job).enabled


def test_job_paused_can_be_stopped(make_job: MakeJob) -> None:
    job = make_job()
    pause_job(job.id)
    assert stop_job(job.id).status == "stopped"


@pytest.mark.parametrize("change", [pause_job, resume_job])
def test_job_stopped_cannot_be_changed(make_job: MakeJob, change: ChangeJob) -> None:
    job = make_job()
    stop_job(job.id)
    with pytest.raises(JobStoppedError):
        change(job.id)


@pytest.mark.django_db
@pytest.mark.parametrize("change", [pause_job, resume_job, stop_job])
def test_job_unknown_is_refused(change: ChangeJob) -> None:
    with pytest.raises(JobNotFoundError):
        change(uuid.uuid4())


def test_job_switched_off_by_hand_says_so(make_job: MakeJob) -> None:
    job = make_job()
    assert blockers(job, now=timezone.now()) == []
    job.periodic_task.enabled = False
    assert blockers(job, now=timezone.now()) == ["switched off: its periodic task was disabled by hand"]


def test_job_of_provider_without_key_names_the_variable(make_job: MakeJob, settings: Settings) -> None:
    settings.FINNHUB_API_KEY = ""
    job = make_job(["AAPL"], provider="finnhub")
    assert blockers(job, now=timezone.now()) == ["not configured: set FINNHUB_API_KEY"]


def test_provider_chosen_is_the_first_configured(settings: Settings) -> None:
    settings.PROVIDER_ORDER = ["finnhub", "alpha_vantage", "yfinance"]
    settings.FINNHUB_API_KEY = ""
    settings.ALPHA_VANTAGE_API_KEY = "a-key-of-length"
    assert choose_provider(["AAPL"], None) == "alpha_vantage"
    assert choose_provider(["AAPL"], "finnhub") == "finnhub"
    assert choose_provider(["SIM-A"], None) == "simulated"


@pytest.mark.django_db(transaction=True)
def test_stop_waits_for_a_poll_that_is_about_to_fetch(make_job: MakeJob) -> None:
    job = make_job()
    (claim,) = claim_slots([job.id], now=timezone.now())
    stopped = threading.Event()

    def stop() -> None:
        try:
            stop_job(job.id)
        finally:
            connection.close()
        stopped.set()

    thread = threading.Thread(target=stop)
    thread.start()
    assert not stopped.wait(0.3)
    finish([RunOutcome(claim, RunState.SKIPPED, reason="done")])
    assert stopped.wait(1.0)
    thread.join()


def test_stop_does_not_wait_for_a_claim_of_long_ago(make_job: MakeJob) -> None:
    job = make_job()
    claim_slots([job.id], now=timezone.now())
    PollRun.objects.update(started_at=timezone.now() - timedelta(minutes=3))
    before = timezone.now()
    stop_job(job.id)
    assert timezone.now() - before < timedelta(seconds=1)
