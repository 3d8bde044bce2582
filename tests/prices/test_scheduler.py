import json
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from django.conf import settings as django_settings
from django.db import OperationalError
from django_celery_beat.models import PeriodicTask
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries

from dev.pytest_services import Services
from marketdata.celery import app
from prices.jobs import pause_job, resume_job
from prices.models import PollRun
from prices.scheduler import SENT_AGAIN_ABOVE_S, GridSchedule, PriceEntry, PriceScheduler
from tests.conftest import MakeJob

START = datetime(2026, 11, 23, tzinfo=UTC)


@given(
    st.integers(1, 3600), st.integers(0, 3_599_999), st.lists(st.floats(0.001, 5000), min_size=1, max_size=50)
)
def test_grid_fires_once_a_slot_whatever_the_delays(interval: int, phase_ms: int, waits: list[float]) -> None:
    phase = timedelta(milliseconds=phase_ms % (interval * 1000))
    now = START
    schedule = GridSchedule(interval, phase, nowfun=lambda: now)
    last_run_at, fired = START, []
    for wait in waits:
        now += timedelta(seconds=wait)
        is_due, next_s = schedule.is_due(last_run_at)
        assert 0 < next_s <= interval
        if is_due:
            fired.append((now - datetime(1970, 1, 1, tzinfo=UTC) - phase) // timedelta(seconds=interval))
            last_run_at = now
    assert len(set(fired)) == len(fired)


def test_grid_does_not_drift_over_a_day() -> None:
    now = START
    schedule = GridSchedule(7, timedelta(seconds=3), nowfun=lambda: now)
    last_run_at, count = START, 0
    while now < START + timedelta(days=1):
        is_due, next_s = schedule.is_due(last_run_at)
        if is_due:
            last_run_at, count = now, count + 1
        now += timedelta(seconds=next_s + 0.02)
    assert count in {86_400 // 7, 86_400 // 7 + 1}


@pytest.mark.django_db
def test_entry_of_new_job_is_due_at_once(make_job: MakeJob) -> None:
    entry = PriceEntry(make_job(interval=86_400).periodic_task, app=app)
    assert entry.is_due().is_due


@pytest.mark.django_db
def test_entry_that_just_ran_waits_for_its_slot(make_job: MakeJob) -> None:
    task = make_job(interval=86_400).periodic_task
    entry = next(PriceEntry(task, app=app))
    assert not entry.is_due().is_due
    assert isinstance(entry.schedule, GridSchedule)


@pytest.mark.django_db
def test_entry_saved_does_not_switch_a_task_on_again(make_job: MakeJob) -> None:
    job = make_job()
    entry = next(PriceEntry(PeriodicTask.objects.get(poll_job=job), app=app))
    pause_job(job.id)
    entry.save()
    assert not PeriodicTask.objects.get(poll_job=job).enabled


@pytest.mark.django_db
def test_scheduler_reads_jobs_with_few_queries(
    make_job: MakeJob, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(10):
        make_job([f"SIM-{number}"])
    scheduler = PriceScheduler(app=app, lazy=True)
    with django_assert_max_num_queries(4):
        schedule = scheduler.all_as_schedule()
    assert sum(isinstance(entry.schedule, GridSchedule) for entry in schedule.values()) == 10


@pytest.mark.django_db(transaction=True)
def test_scheduler_installs_the_services_own_tasks() -> None:
    scheduler = PriceScheduler(app=app, lazy=True)
    scheduler.setup_schedule()
    assert set(django_settings.CELERY_BEAT_SCHEDULE) <= set(
        PeriodicTask.objects.values_list("name", flat=True)
    )
    assert all(
        PeriodicTask.objects.get(name=name).queue == "upkeep" for name in django_settings.CELERY_BEAT_SCHEDULE
    )


@pytest.mark.django_db
def test_resumed_job_is_due_at_once(make_job: MakeJob) -> None:
    job = make_job(interval=86_400)
    entry = next(PriceEntry(PeriodicTask.objects.get(poll_job=job), app=app))
    entry.save()
    pause_job(job.id)
    resume_job(job.id)
    assert PriceEntry(PeriodicTask.objects.get(poll_job=job), app=app).is_due().is_due


@pytest.mark.django_db
def test_entry_takes_all_but_enabled_from_its_job(make_job: MakeJob) -> None:
    job = make_job(interval=60)
    PeriodicTask.objects.filter(poll_job=job).update(
        task="other.task", args="[]", headers="[]", queue="elsewhere", start_time=START + timedelta(days=9999)
    )
    entry = PriceEntry(PeriodicTask.objects.get(poll_job=job), app=app)
    assert (entry.task, entry.args) == ("prices.tasks.poll_job", [str(job.id)])
    assert entry.options["queue"] == "poll.simulated"
    assert entry.is_due().is_due


@pytest.mark.django_db
def test_scheduler_leaves_out_a_task_that_cannot_be_read(make_job: MakeJob) -> None:
    job = make_job()
    PeriodicTask.objects.create(name="broken", task="x", interval=job.periodic_task.interval, headers="[]")
    schedule = PriceScheduler(app=app, lazy=True).all_as_schedule()
    assert job.periodic_task.name in schedule
    assert "broken" not in schedule


@pytest.mark.django_db(transaction=True)
def test_scheduler_keeps_its_tasks_while_the_database_is_away(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job()
    scheduler = PriceScheduler(app=app, lazy=True)
    for _ in range(2):  # the second time it notes when the tasks last changed
        assert job.periodic_task.name in scheduler.schedule

    def fail(_: object) -> None:
        raise OperationalError("the connection is closed")

    with monkeypatch.context() as patched:
        patched.setattr(PriceScheduler, "enabled_models", fail)
        make_job(["SIM-B"])
        assert job.periodic_task.name in scheduler.schedule
    assert len([name for name in scheduler.schedule if name.startswith("poll job")]) == 2


def test_grid_with_a_last_run_ahead_of_the_clock_is_due() -> None:
    schedule = GridSchedule(60, timedelta(0), nowfun=lambda: START)
    assert schedule.is_due(START + timedelta(hours=1)).is_due


@pytest.fixture
def beat() -> Iterator[PriceScheduler]:
    scheduler = PriceScheduler(app=app, lazy=True)
    yield scheduler
    # Else it writes to a database that is gone when the tests end.
    scheduler._finalize.cancel()


def tick_until_all_is_sent(scheduler: PriceScheduler) -> None:
    while scheduler.tick() == 0:
        pass


def messages_of(queue: str) -> list[dict[str, Any]]:
    with redis.Redis.from_url(django_settings.REDIS_URL) as broker:
        messages = [json.loads(raw) for raw in broker.lrange(queue, 0, -1)]
        broker.delete(queue)
    return messages


def sent_to(queue: str) -> list[set[str]]:
    return [set(json.loads(b64decode(message["body"]))[0][0]) for message in messages_of(queue)]


@pytest.mark.django_db(transaction=True)
def test_jobs_due_together_are_sent_together(make_job: MakeJob, beat: PriceScheduler) -> None:
    sent_to("poll.simulated")
    jobs = {str(make_job([f"SIM-{number}"], interval=60).id) for number in range(20)}
    tick_until_all_is_sent(beat)
    assert sent_to("poll.simulated") == [jobs]


@pytest.mark.django_db(transaction=True)
def test_jobs_of_provider_asked_symbol_by_symbol_are_sent_side_by_side(
    make_job: MakeJob, beat: PriceScheduler
) -> None:
    sent_to("poll.finnhub")
    equal = {
        str(make_job(symbols, interval=60, provider="finnhub").id) for symbols in (["A", "B"], ["B", "A"])
    }
    other = {str(make_job(["A"], interval=60, provider="finnhub").id)}
    tick_until_all_is_sent(beat)
    assert sorted(sent_to("poll.finnhub"), key=len) == [other, equal]


@pytest.mark.django_db(transaction=True)
def test_what_is_due_is_sent_before_beat_ends(make_job: MakeJob, beat: PriceScheduler) -> None:
    sent_to("poll.simulated")
    job = make_job(interval=60)
    while not beat._due:
        beat.tick()
    beat.close()
    assert sent_to("poll.simulated") == [{str(job.id)}]


@pytest.mark.django_db(transaction=True)
def test_message_expires_at_the_longest_interval_of_its_jobs(make_job: MakeJob, beat: PriceScheduler) -> None:
    sent_to("poll.simulated")
    for interval in (60, 3600, 600):
        make_job(interval=interval)
    before = datetime.now(UTC)
    tick_until_all_is_sent(beat)
    (message,) = messages_of("poll.simulated")
    expires_at = datetime.fromisoformat(message["headers"]["expires"])
    assert before <= expires_at - timedelta(seconds=3600) <= datetime.now(UTC)


@contextmanager
def redis_away(services: Services) -> Iterator[None]:
    services.valkey.stop()
    try:
        yield
    finally:
        services.valkey.start()


@contextmanager
def redis_full(_services: Services) -> Iterator[None]:
    with redis.Redis.from_url(django_settings.REDIS_URL) as client:
        client.config_set("maxmemory", 1)
        try:
            yield
        finally:
            client.config_set("maxmemory", 0)


@pytest.mark.django_db(transaction=True)
def test_jobs_of_long_intervals_are_sent_once_redis_is_back(
    make_job: MakeJob, beat: PriceScheduler, services: Services
) -> None:
    sent_to("poll.simulated")
    jobs = {str(make_job([f"SIM-{number}"], interval=SENT_AGAIN_ABOVE_S + 1).id) for number in range(3)}
    with redis_away(services):
        tick_until_all_is_sent(beat)
        # Another slot of theirs is due, and Redis still away: each is kept once.
        for entry in list(beat._due["poll.simulated"]):
            beat.apply_entry(entry)
        beat.send_due_jobs()
    beat.send_due_jobs()
    assert sent_to("poll.simulated") == [jobs]
    beat.send_due_jobs()
    assert sent_to("poll.simulated") == []
    assert not PollRun.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("trouble", [redis_away, redis_full])
def test_slots_of_short_intervals_are_noted_as_skipped_where_redis_takes_no_messages(
    make_job: MakeJob,
    beat: PriceScheduler,
    services: Services,
    trouble: Callable[[Services], AbstractContextManager[None]],
) -> None:
    sent_to("poll.simulated")
    short = make_job(interval=SENT_AGAIN_ABOVE_S)
    long = make_job(interval=SENT_AGAIN_ABOVE_S + 1)
    with trouble(services):
        tick_until_all_is_sent(beat)
    run = PollRun.objects.get()
    assert (run.job_id, run.state, run.reason) == (short.id, "skipped", "Redis takes no messages")
    short.refresh_from_db()
    assert short.last_error == "Redis takes no messages"
    beat.send_due_jobs()
    assert sent_to("poll.simulated") == [{str(long.id)}]


@pytest.mark.django_db(transaction=True)
def test_beat_does_not_try_message_after_message_while_redis_is_away(
    make_job: MakeJob, beat: PriceScheduler, services: Services
) -> None:
    sent_to("poll.finnhub")
    # Each is a message of its own.
    jobs = [{str(make_job([f"S{number}"], interval=60, provider="finnhub").id)} for number in range(20)]
    with redis_away(services):
        started = time.monotonic()
        tick_until_all_is_sent(beat)
        assert time.monotonic() - started < 5
    beat.send_due_jobs()
    assert sorted(map(sorted, sent_to("poll.finnhub"))) == sorted(map(sorted, jobs))
