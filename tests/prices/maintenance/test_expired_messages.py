"""What no worker took in time goes from the queues; what is still wanted stays."""

import json
import time
from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import redis
from django.conf import settings as django_settings

from dev.pytest_services import Services
from marketdata.celery import app
from prices.jobs.services import POLL_TOGETHER_TASK
from prices.maintenance import expired_messages
from prices.maintenance.expired_messages import drop_expired_messages, needless_after

QUEUE = "poll.simulated"
GARBAGE: list[str | bytes] = [
    "no message",
    b"\xff\x00",
    "[]",
    "{}",
    '{"headers": 1}',
    '{"headers": {"expires": "never"}}',
    '{"headers": {"expires": null, "needless_after": NaN}}',
    '{"headers": {"expires": null, "needless_after": "never"}}',
    f'{{"headers": {{"expires": null, "needless_after": 1{"0" * 400}}}}}',
    "[" * 100_000,
]


@pytest.fixture(autouse=True)
def broker() -> Iterator[redis.Redis]:
    with redis.Redis.from_url(django_settings.REDIS_URL) as client:
        client.delete(QUEUE)
        yield client
        client.delete(QUEUE)


def send(job: str, *, expires_s: float | None) -> None:
    headers = {} if expires_s is None else needless_after(time.time() + expires_s)
    app.send_task(POLL_TOGETHER_TASK, args=[[job]], queue=QUEUE, headers=headers)


def waiting(broker: redis.Redis) -> list[str]:
    """Return the jobs whose messages wait, oldest first."""
    messages = [json.loads(raw) for raw in reversed(broker.lrange(QUEUE, 0, -1))]
    return [json.loads(b64decode(message["body"]))[0][0][0] for message in messages]


def in_(minutes: float) -> datetime:
    return datetime.now(UTC) + timedelta(minutes=minutes)


def test_expired_messages_go_and_others_stay_in_their_order(broker: redis.Redis) -> None:
    for job, expires_s in {"a": 86_400, "b": 1, "c": 600, "d": 1, "e": 1}.items():
        send(job, expires_s=expires_s)
    assert drop_expired_messages(now=in_(2)) == 3
    assert waiting(broker) == ["a", "c"]


def test_message_without_such_a_time_stays(broker: redis.Redis) -> None:
    send("a", expires_s=None)
    assert drop_expired_messages(now=in_(9999)) == 0
    assert waiting(broker) == ["a"]


def test_message_stays_for_a_minute_by_which_clocks_may_differ(broker: redis.Redis) -> None:
    send("a", expires_s=30)
    assert drop_expired_messages(now=in_(1.4)) == 0
    assert drop_expired_messages(now=in_(1.6)) == 1
    assert waiting(broker) == []


def test_queue_of_any_length_is_gone_through(broker: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expired_messages, "READ_AT_ONCE", 3)
    for number in range(20):
        send(str(number), expires_s=600 if number % 4 < 2 else 1)
    assert drop_expired_messages(now=in_(2)) == 10
    assert waiting(broker) == [str(number) for number in range(20) if number % 4 < 2]


def test_what_is_no_message_goes_and_holds_nothing_up(broker: redis.Redis) -> None:
    send("a", expires_s=600)
    broker.rpush(QUEUE, *GARBAGE)
    assert drop_expired_messages(now=in_(0)) == len(GARBAGE)
    assert waiting(broker) == ["a"]


def test_queue_that_is_no_list_is_left_to_the_next_time(broker: redis.Redis) -> None:
    broker.set(QUEUE, "no list")
    assert drop_expired_messages(now=in_(0)) == 0


def test_redis_away_is_left_to_the_next_time(services: Services) -> None:
    send("a", expires_s=1)
    services.valkey.stop()
    try:
        assert drop_expired_messages(now=in_(2)) == 0
    finally:
        services.valkey.start()
