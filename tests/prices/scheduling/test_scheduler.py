"""Beat's scheduler: poll jobs on their grids, other periodic tasks as everyone knows them, one leader."""

import json
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, cast

import pytest
import redis
from django.conf import settings as django_settings
from django.utils import timezone
from django_celery_beat.models import (
    ClockedSchedule,
    IntervalSchedule,
    PeriodicTask,
    PeriodicTasks,
    SolarSchedule,
)
from django_celery_beat.schedulers import DatabaseScheduler

from dev.pytest_services import Services
from marketdata.celery import app
from prices.database.uuid7 import epoch_ms
from prices.jobs.services import pause_job, resume_job, stop_job
from prices.models import BeatTerm, PollJob
from prices.scheduling.job_sync import group_key_of
from prices.scheduling.leader_lease import LEASE_S
from prices.scheduling.scheduler import PriceEntry, PriceScheduler
from tests.conftest import MakeJob
from tests.logged import events_logged
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
MakeBeat = Callable[[], PriceScheduler]
QUEUES = ("poll.simulated", "poll.finnhub", "maintenance", "elsewhere")


@pytest.fixture
def make_beat(transactional_db: None) -> Iterator[MakeBeat]:
    made: list[PriceScheduler] = []
    for queue in QUEUES:
        messages_of(queue)

    def make() -> PriceScheduler:
        made.append(PriceScheduler(app=app))
        return made[-1]

    yield make
    for each in made:
        each._lease.release()
        # Else it writes to a database that is gone when the tests end.
        each._finalize.cancel()


@pytest.fixture
def beat(make_beat: MakeBeat) -> PriceScheduler:
    return make_beat()


def messages_of(queue: str) -> list[dict[str, Any]]:
    with redis.Redis.from_url(django_settings.REDIS_URL) as broker:
        messages = [json.loads(raw) for raw in broker.lrange(queue, 0, -1)]
        broker.delete(queue)
    return messages


def jobs_sent(queue: str = "poll.simulated") -> list[str]:
    return [
        job_id for message in messages_of(queue) for job_id in json.loads(b64decode(message["body"]))[0][0]
    ]


def sends(scheduler: PriceScheduler, job: PollJob, queue: str = "poll.simulated") -> bool:
    scheduler.tick()
    return str(job.id) in jobs_sent(queue)


def test_new_job_is_sent_at_once_and_once(beat: PriceScheduler, make_job: MakeJob) -> None:
    beat.tick()
    job = make_job(interval=86_400)
    wait_until(lambda: sends(beat, job))
    for _ in range(10):
        assert not sends(beat, job)


def test_job_that_was_created_while_no_beat_ran_is_sent_at_once(
    beat: PriceScheduler, make_job: MakeJob
) -> None:
    job = make_job(interval=86_400)
    beat.tick()
    assert jobs_sent() == [str(job.id)]


def test_job_that_has_run_waits_for_its_slot(beat: PriceScheduler, make_job: MakeJob) -> None:
    job = make_job(interval=86_400)
    PollJob.objects.update(last_run_at=timezone.now())
    led_until = timezone.now()
    BeatTerm.objects.create(holder="x", began_at=led_until, renewed_at=led_until, until=led_until)
    assert not sends(beat, job)


def test_job_is_sent_each_interval(beat: PriceScheduler, make_job: MakeJob) -> None:
    job = make_job(interval=1)
    sent: list[str] = []

    def sent_thrice() -> bool:
        beat.tick()
        sent.extend(jobs_sent())
        return len(sent) >= 4

    began = timezone.now()
    wait_until(sent_thrice)
    assert set(sent) == {str(job.id)}
    assert timezone.now() - began > timedelta(seconds=2)


@pytest.mark.parametrize("end", [pause_job, stop_job])
def test_job_that_is_paused_or_stopped_is_not_sent(
    beat: PriceScheduler, make_job: MakeJob, end: Callable[[Any], PollJob]
) -> None:
    job, other = make_job(interval=1), make_job(["SIM-B"], interval=1)
    wait_until(lambda: sends(beat, job))
    end(job.id)
    wait_until(lambda: beat.tick() >= 0 and not beat._jobs.knows(job.id))
    jobs_sent()
    wait_until(lambda: sends(beat, other))
    assert not sends(beat, job)


def test_resumed_job_is_sent_at_once(beat: PriceScheduler, make_job: MakeJob) -> None:
    job = make_job(interval=86_400)
    wait_until(lambda: sends(beat, job))
    pause_job(job.id)
    wait_until(lambda: beat.tick() >= 0 and not beat._jobs.knows(job.id))
    resume_job(job.id)
    wait_until(lambda: sends(beat, job))


def test_task_switched_off_and_on_by_hand_is_followed(beat: PriceScheduler, make_job: MakeJob) -> None:
    job = make_job(interval=86_400)
    wait_until(lambda: sends(beat, job))
    task = PeriodicTask.objects.get(poll_job=job)
    task.enabled = False
    task.save()
    wait_until(lambda: beat.tick() >= 0 and not beat._jobs.knows(job.id))
    task.enabled = True
    task.save()
    wait_until(lambda: sends(beat, job))


@pytest.mark.parametrize("pauses_first", [False, True])
def test_job_resumed_after_its_task_was_switched_off_by_hand_is_sent_at_once(
    beat: PriceScheduler, make_job: MakeJob, pauses_first: bool
) -> None:
    job = make_job(interval=86_400)
    wait_until(lambda: sends(beat, job))
    task = PeriodicTask.objects.get(poll_job=job)
    task.enabled = False
    task.save()
    wait_until(lambda: beat.tick() >= 0 and not beat._jobs.knows(job.id))
    if pauses_first:
        pause_job(job.id)
    resume_job(job.id)
    wait_until(lambda: sends(beat, job))


def test_job_that_moves_goes_to_its_new_providers_queue(beat: PriceScheduler, make_job: MakeJob) -> None:
    job = make_job(interval=1)
    wait_until(lambda: sends(beat, job))
    PollJob.objects.update(provider="finnhub")
    wait_until(lambda: sends(beat, job, "poll.finnhub"))


def test_clock_that_is_set_back_is_followed(
    beat: PriceScheduler, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(interval=1)
    with monkeypatch.context() as ahead:
        an_hour_ahead = timedelta(hours=1) // timedelta(milliseconds=1)
        ahead.setattr(beat._lease, "now_ms", lambda: time.time_ns() // 1_000_000 + an_hour_ahead)
        wait_until(lambda: sends(beat, job))
    wait_until(lambda: sends(beat, job))


def test_slots_that_came_while_the_host_slept_are_not_all_sent(
    beat: PriceScheduler, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [make_job([f"SIM-{number}"], interval=600) for number in range(20)]
    sent: set[str] = set()

    def all_sent() -> bool:
        beat.tick()
        sent.update(jobs_sent())
        return len(sent) == len(jobs)

    wait_until(all_sent)
    woken = epoch_ms(timezone.now()) + 3_600_000
    monkeypatch.setattr(beat._lease, "now_ms", lambda: woken)
    beat.tick()
    again = jobs_sent()
    # Late by no more than three seconds and a twentieth of the interval.
    late = [woken - group_key_of(job).slot_at(woken) for job in jobs if str(job.id) in again]
    assert max(late, default=0) <= 33_000


def test_standby_sends_nothing_and_takes_over(make_beat: MakeBeat, make_job: MakeJob) -> None:
    first, second = make_beat(), make_beat()
    job = make_job(interval=1)
    wait_until(lambda: sends(first, job))
    second.tick()
    assert jobs_sent() == []
    # The first one is stopped: its lease runs out.
    wait_until(lambda: sends(second, job))
    jobs_sent()
    first.tick()
    assert jobs_sent() == []


def test_beat_that_ends_lets_another_lead_at_once(make_beat: MakeBeat, make_job: MakeJob) -> None:
    first, second = make_beat(), make_beat()
    job = make_job(interval=1)
    wait_until(lambda: sends(first, job))
    first.close()
    second.tick()
    assert BeatTerm.objects.filter(until__gt=timezone.now()).count() == 1


def test_what_is_due_is_sent_before_beat_ends(beat: PriceScheduler, make_job: MakeJob) -> None:
    beat.tick()
    job = make_job(interval=60)

    def is_known() -> bool:
        beat._jobs.follow()
        return beat._jobs.knows(job.id)

    wait_until(is_known)
    beat.close()
    assert jobs_sent() == [str(job.id)]


def test_database_away_at_the_start_is_waited_for(
    beat: PriceScheduler, make_job: MakeJob, services: Services
) -> None:
    job = make_job(interval=60)
    services.postgres.stop()
    try:
        for _ in range(3):
            assert beat.tick() > 0
    finally:
        services.postgres.start()
    wait_until(lambda: sends(beat, job))
    assert set(django_settings.CELERY_BEAT_SCHEDULE) <= set(
        PeriodicTask.objects.values_list("name", flat=True)
    )


def test_database_away_for_a_while_loses_no_task(
    beat: PriceScheduler, make_job: MakeJob, services: Services
) -> None:
    job = make_job(interval=1)
    wait_until(lambda: sends(beat, job))
    services.postgres.stop()
    try:
        for _ in range(3):
            beat.tick()
    finally:
        services.postgres.start()
    jobs_sent()
    wait_until(lambda: sends(beat, job))
    assert set(django_settings.CELERY_BEAT_SCHEDULE) <= set(beat.schedule)


def test_services_own_tasks_go_to_maintenance(beat: PriceScheduler) -> None:
    beat.tick()
    for name in django_settings.CELERY_BEAT_SCHEDULE:
        assert PeriodicTask.objects.get(name=name).queue == "maintenance"
    wait_until(lambda: beat.tick() >= 0 and messages_of("maintenance") != [])


def test_tasks_that_take_longer_to_write_than_a_lease_lasts_are_sent(
    beat: PriceScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = DatabaseScheduler.setup_schedule
    written: list[float] = []

    def write_slowly(scheduler: DatabaseScheduler) -> None:
        write(scheduler)
        written.append(time.monotonic())
        time.sleep(LEASE_S + 0.1)

    monkeypatch.setattr(DatabaseScheduler, "setup_schedule", write_slowly)
    wait_until(lambda: beat.tick() >= 0 and messages_of("maintenance") != [])
    assert len(written) <= 2


def queue_of_sweep() -> str | None:
    queue: str | None = PeriodicTask.objects.get(name="sweep outbox").queue
    return queue


def test_own_tasks_are_written_again_after_another_beat(beat: PriceScheduler, make_beat: MakeBeat) -> None:
    """It may be of a former version of the service."""
    beat.tick()
    PeriodicTask.objects.filter(name="sweep outbox").update(queue="of another version")
    beat.close()
    other = make_beat()
    wait_until(lambda: other.tick() >= 0 and queue_of_sweep() == "maintenance")
    PeriodicTask.objects.filter(name="sweep outbox").update(queue="of another version")
    other.close()
    wait_until(lambda: beat.tick() >= 0 and queue_of_sweep() == "maintenance")


def test_periodic_task_of_users_is_sent_as_its_row_says(beat: PriceScheduler) -> None:
    beat.tick()
    schedule = IntervalSchedule.objects.create(every=1, period=IntervalSchedule.SECONDS)
    PeriodicTask.objects.create(
        name="own", task="their.task", args='["x"]', queue="elsewhere", interval=schedule
    )
    found: list[dict[str, Any]] = []

    def is_sent() -> bool:
        beat.tick()
        found.extend(messages_of("elsewhere"))
        return bool(found)

    wait_until(is_sent)
    assert found[0]["headers"]["task"] == "their.task"
    assert json.loads(b64decode(found[0]["body"]))[0] == ["x"]


def test_one_off_task_is_sent_once(beat: PriceScheduler) -> None:
    clocked = ClockedSchedule.objects.create(clocked_time=timezone.now())
    PeriodicTask.objects.create(
        name="once", task="their.task", queue="elsewhere", clocked=clocked, one_off=True
    )
    sent = 0

    def is_over() -> bool:
        nonlocal sent
        beat.tick()
        sent += len(messages_of("elsewhere"))
        return not PeriodicTask.objects.get(name="once").enabled

    wait_until(is_over)
    assert sent == 1


def test_task_is_not_fired_again_by_a_change_of_another(beat: PriceScheduler) -> None:
    schedule = IntervalSchedule.objects.create(every=1, period=IntervalSchedule.HOURS)
    for name in ("own", "other"):
        PeriodicTask.objects.create(
            name=name,
            task="their.task",
            queue="elsewhere",
            interval=schedule,
            last_run_at=timezone.now() - timedelta(hours=2),
        )
    sent = 0
    for number in range(20):
        PeriodicTask.objects.get(name="other").save()
        beat.tick()
        beat._others_at = float("-inf")
        sent += len(messages_of("elsewhere"))
        assert number < 19 or sent == 2


def never_writes_by_itself(beat: PriceScheduler) -> None:
    beat.sync_every = 3600
    beat._last_sync = time.monotonic()


def test_task_is_not_fired_again_where_its_run_could_not_be_written(
    beat: PriceScheduler, services: Services
) -> None:
    schedule = IntervalSchedule.objects.create(every=1, period=IntervalSchedule.HOURS)
    long_ago = timezone.now() - timedelta(hours=2)
    PeriodicTask.objects.create(
        name="own", task="their.task", queue="elsewhere", interval=schedule, last_run_at=long_ago
    )
    never_writes_by_itself(beat)
    wait_until(lambda: beat.tick() >= 0 and messages_of("elsewhere") != [])
    assert beat._dirty
    services.postgres.stop()
    beat.sync()
    services.postgres.start()
    # A change of another task has all of them read anew.
    PeriodicTask.objects.create(name="other", task="x", interval=schedule)
    wait_until(lambda: beat.tick() >= 0 and "other" in beat._schedule)
    assert messages_of("elsewhere") == []
    beat.sync()
    assert PeriodicTask.objects.get(name="own").last_run_at > long_ago + timedelta(hours=1)


def test_run_written_late_does_not_set_back_what_another_beat_wrote(beat: PriceScheduler) -> None:
    schedule = IntervalSchedule.objects.create(every=1, period=IntervalSchedule.HOURS)
    task = PeriodicTask.objects.create(name="own", task="their.task", interval=schedule)
    never_writes_by_itself(beat)
    wait_until(lambda: beat.tick() >= 0 and "own" in beat.schedule)
    beat.reserve(beat.schedule["own"])
    later = timezone.now()
    PeriodicTask.objects.filter(pk=task.pk).update(last_run_at=later, total_run_count=7)
    entries = beat.all_as_schedule()
    assert (entries["own"].last_run_at, entries["own"].total_run_count) == (later, 7)
    beat.sync()
    task.refresh_from_db()
    assert (task.last_run_at, task.total_run_count) == (later, 7)


def test_entry_saved_does_not_switch_a_task_on_again(beat: PriceScheduler) -> None:
    schedule = IntervalSchedule.objects.create(every=1, period=IntervalSchedule.HOURS)
    task = PeriodicTask.objects.create(name="own", task="their.task", interval=schedule)
    entry = next(PriceEntry(task, app=app))
    PeriodicTask.objects.filter(name="own").update(enabled=False)
    entry.save()
    assert not PeriodicTask.objects.get(name="own").enabled


def errors_in(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [cast("dict[str, Any]", each.msg) for each in caplog.records if each.levelname == "ERROR"]


def test_tasks_that_redis_does_not_take_are_one_line_in_the_log(
    beat: PriceScheduler, services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    beat.tick()
    entry = beat.schedule["sweep outbox"]
    caplog.clear()
    services.valkey.stop()
    try:
        beat.apply_entry(entry)
        beat.apply_entry(entry)
    finally:
        services.valkey.start()
    beat.apply_entry(entry)
    assert events_logged(caplog) == {"beat.redis_away": 1, "beat.redis_back": 1}
    assert errors_in(caplog) == []


def test_task_that_cannot_be_sent_for_another_reason_shows_its_stack(
    beat: PriceScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    beat.tick()
    entry = beat.schedule["sweep outbox"]
    entry.options["expires"] = "no time"
    beat.apply_entry(entry)
    assert [(told["task"], told["exc_info"]) for told in errors_in(caplog)] == [("sweep outbox", True)]


def test_task_that_cannot_be_read_is_left_out(beat: PriceScheduler) -> None:
    schedule = IntervalSchedule.objects.create(every=1, period=IntervalSchedule.HOURS)
    sunrise = SolarSchedule.objects.create(event="sunrise", latitude=51.48, longitude=0)
    PeriodicTask.objects.create(name="sound", task="x", solar=sunrise)
    PeriodicTask.objects.create(name="broken", task="x", interval=schedule, headers="[]")
    assert "sound" in beat.all_as_schedule()
    assert "broken" not in beat.all_as_schedule()


def test_tasks_are_sent_where_they_last_ran_in_a_time_to_come(beat: PriceScheduler) -> None:
    # A clock that was ahead wrote it, and this beat is started after it was set right.
    schedule = IntervalSchedule.objects.create(every=1, period=IntervalSchedule.SECONDS)
    in_an_hour = timezone.now() + timedelta(hours=1)
    PeriodicTask.objects.create(
        name="own", task="their.task", queue="elsewhere", interval=schedule, last_run_at=in_an_hour
    )
    wait_until(lambda: beat.tick() >= 0 and messages_of("elsewhere"))
    beat.sync()
    assert PeriodicTask.objects.get(name="own").last_run_at <= timezone.now()


def test_tasks_are_sent_once_the_clock_is_set_back(beat: PriceScheduler) -> None:
    for name, seconds in (("often", 1), ("seldom", 3)):
        schedule = IntervalSchedule.objects.create(every=seconds, period=IntervalSchedule.SECONDS)
        PeriodicTask.objects.create(name=name, task=f"their.{name}", queue="elsewhere", interval=schedule)
    wait_until(lambda: beat.tick() >= 0 and {"often", "seldom"} <= set(beat.schedule))
    for entry in beat.schedule.values():
        entry.last_run_at += timedelta(hours=1)
    heap = cast(list[Any], beat._heap)
    cast(Any, beat)._heap = [event._replace(time=event.time + 3600) for event in heap]
    sent: set[str] = set()

    def all_sent() -> bool:
        beat.tick()
        sent.update(message["headers"]["task"] for message in messages_of("elsewhere"))
        return sent == {"their.often", "their.seldom"}

    wait_until(all_sent)


def test_mark_written_by_a_clock_that_was_ahead_hides_no_later_change(beat: PriceScheduler) -> None:
    beat.tick()
    ahead = timezone.now() + timedelta(hours=1)
    # Beat writes the tasks of its own in one of its first turns, and the mark with them.
    wait_until(
        lambda: (
            PeriodicTasks.objects.update(last_update=ahead)
            and beat.tick() >= 0
            and beat._last_timestamp == ahead
        )
    )
    schedule = IntervalSchedule.objects.create(every=1, period=IntervalSchedule.SECONDS)
    PeriodicTask.objects.create(name="own", task="their.task", queue="elsewhere", interval=schedule)
    wait_until(lambda: beat.tick() >= 0 and "own" in beat.schedule)
