"""How many requests are answered where API_AUTH is `keys`."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import redis
import requests
from django.conf import settings as django_settings
from django.http import HttpResponse
from pytest_django import Settings
from rest_framework.test import APIClient

from marketdata.asgi import THREADS
from prices.access.keys import create_key
from prices.api.access.throttle import Counted, ThrottledError, count_request
from prices.models import Scope
from tests.logged import events_logged
from tests.product import Product
from tests.waiting import wait_until

AT_ONCE = 100
MOST = 37
# Longer than any test takes: nothing leaves the window.
RULE = f"{MOST}/1h"


@pytest.fixture
def keyed(settings: Settings, db: None) -> APIClient:
    """Return a client with a key."""
    settings.API_AUTH, settings.API_RATE, settings.API_RATE_WITHOUT_KEY = "keys", "2/1h", "2/1h"
    return client_of("team")


def client_of(name: str) -> APIClient:
    made = create_key(name, [Scope.READ], expires_at=None)
    return APIClient(headers={"X-API-Key": made.text})


def is_let_through(caller: str, rule: str = RULE) -> bool:
    try:
        count_request("key", caller, rule)
    except ThrottledError:
        return False
    return True


def seconds_of(answer: HttpResponse) -> int:
    """Return after how many seconds the header RateLimit promises one more."""
    return int(answer["RateLimit"].rpartition("t=")[2])


def test_of_many_at_once_as_many_are_let_through_as_the_limit_says() -> None:
    begin = Barrier(THREADS)

    def ask(_number: int) -> Counter[bool]:
        begin.wait()
        return Counter(is_let_through("one") for _ in range(10))

    with ThreadPoolExecutor(THREADS) as pool:
        told = sum(pool.map(ask, range(THREADS)), Counter[bool]())
    assert told == {True: MOST, False: THREADS * 10 - MOST}
    assert is_let_through("other")


def test_no_window_holds_more_than_the_limit(own_requests: str) -> None:
    """Each that leaves the window makes room for one, and what was refused takes none."""
    with redis.Redis.from_url(django_settings.REDIS_URL) as client:
        key, now_ms = f"{own_requests}:key:one", int(client.time()[0]) * 1000
        # Two left it a second ago; of the others the oldest has a minute to go.
        ages_s = [3601, 3601, 3540, *[60] * (MOST - 3)]
        client.rpush(key, *[now_ms - age * 1000 for age in reversed(ages_s)])
        for _ in range(5):
            is_let_through("one")
        assert client.llen(key) == MOST
        with pytest.raises(ThrottledError) as caught:
            count_request("key", "one", RULE)
        assert 55 < caught.value.allowance.more_in_s <= 60
        assert 0 < client.pttl(key) <= 3_600_000


def test_clock_that_was_ahead_holds_nobody_back(own_requests: str) -> None:
    with redis.Redis.from_url(django_settings.REDIS_URL) as client:
        ahead_ms = (int(client.time()[0]) + 86_400) * 1000
        client.rpush(f"{own_requests}:key:one", *[ahead_ms] * MOST)
    assert [is_let_through("one") for _ in range(MOST + 1)] == [True] * MOST + [False]


def test_lowered_limit_tells_when_there_is_room(own_requests: str) -> None:
    """Of four that were let through two have to leave before the limit of three has room for one."""
    with redis.Redis.from_url(django_settings.REDIS_URL) as client:
        now_ms = int(client.time()[0]) * 1000
        client.rpush(f"{own_requests}:key:one", *[now_ms - age * 1000 for age in (60, 120, 1800, 3000)])
    with pytest.raises(ThrottledError) as caught:
        count_request("key", "one", "3/1h")
    allowance = caught.value.allowance
    assert allowance.left == 0
    assert 1795 < allowance.more_in_s <= 1800


@pytest.mark.parametrize("wrong", ["text", "nan", "9" * 20, "\xff", None])
def test_what_nobody_here_wrote_is_deleted_and_counting_goes_on(
    wrong: str | None, own_requests: str, caplog: pytest.LogCaptureFixture
) -> None:
    with redis.Redis.from_url(django_settings.REDIS_URL) as client:
        key = f"{own_requests}:key:one"
        if wrong is None:
            client.set(key, "no list")
        else:
            client.rpush(key, wrong)
    assert [is_let_through("one") for _ in range(MOST + 1)] == [True] * MOST + [False]
    assert events_logged(caplog)["redis.garbage_deleted"] == 1


@pytest.mark.parametrize("rule", ["none", "NONE"])
def test_no_limit_counts_nothing(rule: str, own_requests: str) -> None:
    assert count_request("key", "one", rule) == Counted()
    with redis.Redis.from_url(django_settings.REDIS_URL) as client:
        assert not list(client.scan_iter(f"{own_requests}:*"))


def test_without_redis_all_are_let_through_and_it_is_logged_once(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    assert all(is_let_through("one") for _ in range(MOST + 5))
    assert events_logged(caplog)["throttle.not_counted"] == 1


def test_answers_tell_what_is_left(keyed: APIClient) -> None:
    answers = [keyed.get("/providers") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert {answer["RateLimit-Policy"] for answer in answers} == {'"key";q=2;w=3600'}
    assert [answer["RateLimit"].partition(";t=")[0] for answer in answers] == [
        '"key";r=1',
        '"key";r=0',
        '"key";r=0',
    ]
    refused = answers[2]
    assert refused["Retry-After"] == str(seconds_of(refused))
    body = json.loads(refused.content)
    assert body["type"] == "urn:marketdata:too-many-requests"
    assert body["detail"] == "2 requests an hour of this key are answered; this is one more."
    # Another key of its own, and problems tell it, too.
    answer = client_of("team").get("/prices/latest?symbol=")
    assert (answer.status_code, answer["RateLimit"].partition(";t=")[0]) == (400, '"key";r=1')


def test_addresses_are_counted_without_a_valid_key_alone(keyed: APIClient, api: APIClient) -> None:
    wrong = {"X-API-Key": "mdk_wrong"}
    told = [api.get("/providers", headers=headers).status_code for headers in ({}, wrong, {}, wrong)]
    assert told == [401, 401, 429, 429]
    assert keyed.get("/providers").status_code == 200
    assert api.get("/providers", REMOTE_ADDR="192.0.2.1").status_code == 401


def test_network_of_an_ipv6_host_is_one_address(keyed: APIClient, api: APIClient) -> None:
    hosts = ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:1", "2001:db8:0:1::1", "::ffff:192.0.2.1"]
    assert [api.get("/providers", REMOTE_ADDR=host).status_code for host in hosts] == [
        401,
        401,
        429,
        401,
        401,
    ]


@pytest.mark.django_db(transaction=True)
def test_web_server_answers_as_many_as_the_limit_says(partitions: None, topic: str, tmp_path: Path) -> None:
    """A hundred connections at once."""
    made = create_key("team", [Scope.READ], expires_at=None)
    product = Product(tmp_path, API_AUTH="keys", API_RATE=RULE)
    try:
        product.start("web")
        wait_until(lambda: product.is_healthy("web"), what="web is ready")
        begin = Barrier(AT_ONCE)

        def ask(_number: int) -> int:
            begin.wait()
            address = f"http://{product.address}/averages?symbol=SIM-A"
            return requests.get(address, headers={"X-API-Key": made.text}, timeout=60).status_code

        with ThreadPoolExecutor(AT_ONCE) as pool:
            assert Counter(pool.map(ask, range(AT_ONCE))) == {200: MOST, 429: AT_ONCE - MOST}
    finally:
        product.close()
