"""The search for canaries finds one that is planted, in each place and each spelling."""

import base64
import gzip
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
import requests
from confluent_kafka import Producer
from django.conf import settings as django_settings
from django.test import Client
from pytest_httpserver import HTTPServer
from rest_framework.test import APIClient

from prices.database.uuid7 import new_ids
from prices.models import PollJob, RawMarketData
from tests.canary_search import (
    SPELLINGS,
    Place,
    admin_pages,
    answer_of,
    files_below,
    find,
    keys_and_values_of_redis,
    messages_of,
    rows_of_all_tables,
)
from tests.conftest import MakeJob

KEY = "canaryFinnhubkey0123456789"
SECRETS = [KEY, 'Canary/Avantage+key="&%1 kbd']
NOW = datetime.now(UTC)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("secret", SECRETS)
def test_search_finds_every_spelling(secret: str, spelling: str) -> None:
    assert find([secret], [("text", f"before {SPELLINGS[spelling](secret)} after".encode())])


@pytest.mark.parametrize("secret", SECRETS)
def test_search_finds_what_is_packed_or_encoded(secret: str) -> None:
    contents = {
        "gzip": gzip.compress(secret.encode()),
        "utf-16": secret.encode("utf-16"),
        "hex": secret.encode().hex().upper().encode(),
        "half": secret[: len(secret) // 2 + 1].encode(),
        **{f"base64 at {start}": base64.b64encode(b"x" * start + secret.encode()) for start in range(3)},
    }
    assert len(find([secret], contents.items())) == len(contents)
    assert find([secret], [("price", b"150.250"), ("redacted", b"key=[redacted]&symbol=AAPL")]) == []


def test_search_finds_a_canary_in_a_log(tmp_path: Path) -> None:
    (tmp_path / "web.log").write_text(f"an event key={KEY}")
    assert_found(files_below(tmp_path), "file web.log")


@pytest.mark.django_db
@pytest.mark.parametrize("column", ["url", "message", "symbols", "payload", "body", "packed body"])
def test_search_finds_a_canary_in_a_raw_answer(column: str) -> None:
    values = {
        "url": KEY,
        "message": KEY,
        "symbols": [KEY],
        "payload": {"a": [KEY]},
        "body": KEY.encode(),
        "packed body": gzip.compress(KEY.encode()),
    }
    row = {"url": "", "message": "", "symbols": ["AAPL"]} | {column.rpartition(" ")[2]: values[column]}
    RawMarketData.objects.create(
        id=new_ids(1)[0], provider="finnhub", outcome="malformed", received_at=NOW, latency_ms=1.0, **row
    )
    assert_found(rows_of_all_tables(), "table raw_market_data")


def test_search_finds_a_canary_in_a_job_its_answer_and_its_page(
    make_job: MakeJob, api: APIClient, admin_client: Client
) -> None:
    job = make_job()
    PollJob.objects.update(last_error=KEY)
    assert_found(rows_of_all_tables(), "table poll_jobs")
    assert_found(answer_of("job", api.get(f"/jobs/{job.id}")), "answer job")
    assert_found(admin_pages(admin_client), "admin polljob")


def test_search_finds_a_canary_in_a_header(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/").respond_with_data("", headers={"X-Key": KEY})
    assert_found(answer_of("page", requests.get(httpserver.url_for("/"), timeout=5)), "headers page")


@pytest.mark.parametrize("part", ["key", "value", "headers"])
def test_search_finds_a_canary_in_kafka(topic: str, part: str) -> None:
    producer = Producer({"bootstrap.servers": django_settings.KAFKA_BOOTSTRAP_SERVERS, "log_level": 0})
    producer.produce(
        topic,
        key=KEY if part == "key" else None,
        value=KEY if part == "value" else "150.25",
        headers={"v": KEY if part == "headers" else "1"},
    )
    assert producer.flush(10) == 0
    places = messages_of(topic, servers=django_settings.KAFKA_BOOTSTRAP_SERVERS, count=1)
    assert_found(places, f"kafka {topic}")


@pytest.mark.parametrize("kind", ["key", "string", "list", "hash", "set", "zset"])
def test_search_finds_a_canary_in_redis(kind: str) -> None:
    url = urlsplit(django_settings.REDIS_URL)._replace(path="/8").geturl()
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        plant: dict[str, Callable[[], object]] = {
            "key": lambda: client.set(KEY, "1"),
            "string": lambda: client.set("planted", KEY),
            "list": lambda: client.rpush("planted", "1", KEY),
            "hash": lambda: client.hset("planted", KEY, "1"),
            "set": lambda: client.sadd("planted", KEY),
            "zset": lambda: client.zadd("planted", {KEY: 1}),
        }
        plant[kind]()
        assert_found(keys_and_values_of_redis(url), "redis key" if kind == "key" else "redis planted")
        client.flushdb()


def assert_found(places: Iterable[Place], name: str) -> None:
    assert {found.partition(": ")[0] for found in find(SECRETS, places)} == {name}
