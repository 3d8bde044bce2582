"""Due jobs become few messages; none is lost where Redis takes none."""

import json
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import redis
from django.conf import settings as django_settings

from dev.pytest_services import Services
from marketdata.celery import app
from prices.models import PollRun
from prices.outage_log import Outage
from prices.scheduling.dispatch import JOBS_IN_A_MESSAGE, SENT_AGAIN_ABOVE_MS, Sender
from prices.scheduling.due_heap import Due, GroupKey
from tests.conftest import MakeJob

QUEUE = "poll.simulated"
NOW_MS = 1_800_000_000_250
LONG, SHORT = SENT_AGAIN_ABOVE_MS + 1000, SENT_AGAIN_ABOVE_MS


@pytest.fixture
def sender() -> Sender:
    messages_of(QUEUE)
    return Sender(app, Outage(began="beat.redis_away", ended="beat.redis_back"), lambda: NOW_MS)


def due(*job_ids: str, interval: int = LONG, kind: str | None = None, queue: str = QUEUE) -> Due:
    return Due(GroupKey(queue, kind, interval, 0), list(job_ids), 0)


def messages_of(queue: str) -> list[dict[str, Any]]:
    with redis.Redis.from_url(django_settings.REDIS_URL) as broker:
        messages = [json.loads(raw) for raw in broker.lrange(queue, 0, -1)]
        broker.delete(queue)
    return messages


def sent_to(queue: str) -> list[list[str]]:
    return sorted(sorted(json.loads(b64decode(message["body"]))[0][0]) for message in messages_of(queue))


def test_jobs_due_together_share_messages(sender: Sender) -> None:
    names = [f"{number:03}" for number in range(JOBS_IN_A_MESSAGE + 1)]
    sender.send([due(name, interval=LONG + number) for number, name in enumerate(names)])
    assert sorted(sent_to(QUEUE), key=len) == [names[-1:], names[:-1]]


def test_job_that_is_due_twice_is_sent_once(sender: Sender) -> None:
    sender.send([due("a"), due("a", "b")])
    assert sent_to(QUEUE) == [["a", "b"]]


def test_jobs_of_different_kinds_are_sent_side_by_side(sender: Sender) -> None:
    sender.send([due("a", "b", kind="AAPL"), due("c", kind="MSFT")])
    assert sent_to(QUEUE) == [["a", "b"], ["c"]]


def test_message_is_needless_after_the_longest_interval_of_its_jobs(sender: Sender) -> None:
    sender.send([due("a", interval=60_000), due("b", interval=3_600_000)])
    (message,) = messages_of(QUEUE)
    assert message["headers"]["needless_after"] == NOW_MS / 1000 + 3600
    # A worker would compare that with its own clock.
    assert message["headers"]["expires"] is None


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
def test_jobs_of_long_intervals_are_sent_once_redis_is_back(sender: Sender, services: Services) -> None:
    with redis_away(services):
        sender.send([due("a"), due("b")])
        # Another slot of theirs is due, and Redis still away: each is kept once.
        sender.send([due("a")])
    sender.send([])
    assert sent_to(QUEUE) == [["a", "b"]]
    sender.send([])
    assert sent_to(QUEUE) == []
    assert not PollRun.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_what_was_kept_is_left_to_the_beat_that_leads_now(sender: Sender, services: Services) -> None:
    with redis_away(services):
        sender.send([due("a")])
    sender.forget()
    sender.send([])
    assert sent_to(QUEUE) == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (redis_away, "Redis cannot be reached"),
        (redis_full, "Redis answers: OOM command not allowed when used memory > 'maxmemory'"),
    ],
)
def test_slots_of_short_intervals_are_noted_as_skipped_where_redis_takes_no_messages(
    make_job: MakeJob,
    sender: Sender,
    services: Services,
    trouble: Callable[[Services], AbstractContextManager[None]],
    reason: str,
) -> None:
    short, long = make_job(interval=10), make_job(interval=11)
    with trouble(services):
        sender.send([due(str(short.id), interval=SHORT), due(str(long.id), interval=LONG)])
    run = PollRun.objects.get()
    assert (run.job_id, run.state, run.reason) == (short.id, "skipped", reason)
    short.refresh_from_db()
    assert short.last_error == reason
    sender.send([])
    assert sent_to(QUEUE) == [[str(long.id)]]


@pytest.mark.django_db(transaction=True)
def test_no_message_after_message_is_tried_while_redis_is_away(sender: Sender, services: Services) -> None:
    # Each is a message of its own.
    jobs = [due(f"job {number}", kind=str(number)) for number in range(20)]
    with redis_away(services):
        started = time.monotonic()
        sender.send(jobs)
        # Twenty tries would take a minute.
        assert time.monotonic() - started < 30
    sender.send([])
    assert len(sent_to(QUEUE)) == 20
