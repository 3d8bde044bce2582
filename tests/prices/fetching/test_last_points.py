"""What Redis keeps of the last points is what the table has, whoever stores, reads or dies meanwhile."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings as django_settings
from django.db import connection
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries, Settings
from structlog.testing import capture_logs

from prices.clock import database_now
from prices.database.uuid7 import new_ids
from prices.fetching import last_points as kept
from prices.fetching.last_points import LOOKED_AT, add_points, begin_entries, read_entries
from prices.latest.stored import last_points
from prices.models import PricePoint
from providers.rate_limits.redis_scripts import ANSWER_TIMEOUT_S
from tests.examples import examples
from tests.product import database_url

pytestmark = pytest.mark.django_db(transaction=True)
ROOT = Path(django_settings.BASE_DIR)
PROVIDERS = ["finnhub", "yfinance"]
REUSED = timedelta(seconds=django_settings.LATEST_REUSE_S)


def store(symbol: str = "AAPL", provider: str = "finnhub", **values: Any) -> PricePoint:
    """Store a point as a poll does, its entry not told of it yet."""
    now = database_now()
    point_id, raw_id = new_ids(2)
    return PricePoint.objects.create(
        **{
            "id": point_id,
            "symbol": symbol,
            "provider": provider,
            "price": Decimal("1.50"),
            "currency": "GBp",
            "observed_at": now,
            "precision": "second",
            "received_at": now,
            "raw": raw_id,
        }
        | values
    )


def ids(points: Sequence[PricePoint]) -> set[str]:
    return {str(point.id) for point in points}


def read(symbol: str = "AAPL", *, later: timedelta = timedelta(0)) -> set[str]:
    return ids(last_points([symbol], now=database_now() + later)[symbol])


@pytest.fixture
def client() -> Iterator[redis.Redis]:
    with redis.Redis.from_url(django_settings.REDIS_URL) as found:
        yield found


def test_entry_answers_without_a_query(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    point = store()
    now = database_now()
    (from_table,) = last_points(["AAPL"], now=now)["AAPL"]
    with django_assert_num_queries(0):
        (from_redis,) = last_points(["AAPL"], now=now)["AAPL"]
    for name in (
        field.name for field in PricePoint._meta.concrete_fields if field.name not in {"published_at", "tx"}
    ):
        assert getattr(from_redis, name) == getattr(from_table, name) == getattr(point, name)
    assert str(from_redis.price) == "1.50"


def test_point_that_is_added_is_read_and_makes_no_entry() -> None:
    before = store()
    read()
    added, other = store(currency=None, observed_at=None, precision="unknown"), store("MSFT")
    add_points([added, other])
    assert read() == ids([before, added])
    assert set(read_entries(["AAPL", "MSFT"], now=database_now())) == {"AAPL"}


def test_point_that_is_committed_while_the_table_is_read_is_in_the_entry() -> None:
    begun = begin_entries(["AAPL"])
    before = store()
    in_table = list(PricePoint.objects.all())
    meanwhile = store()
    add_points([meanwhile])
    begun.complete(in_table, now=database_now())
    assert ids(read_entries(["AAPL"], now=database_now())["AAPL"]) == ids([before, meanwhile])


def test_entry_that_another_one_has_begun_is_not_completed() -> None:
    store()
    begin_entries(["AAPL"])
    assert read_entries(["AAPL"], now=database_now()) == {}
    read()
    assert read_entries(["AAPL"], now=database_now()) == {}


def test_entry_ends_by_the_databases_clock_whatever_that_of_redis_says(client: redis.Redis) -> None:
    old = store()
    assert read() == ids([old])
    for key in client.scan_iter(f"{kept.PREFIX}:*"):
        client.persist(key)
    new = store()
    assert read() == ids([old])
    assert read(later=REUSED) == ids([old, new])


def test_point_of_a_time_to_come_sends_its_readers_to_the_table(client: redis.Redis) -> None:
    now = store()
    read()
    add_points([store(received_at=database_now() + timedelta(hours=1))])
    assert read() == ids([now])


def test_only_the_last_points_of_each_provider_are_kept() -> None:
    read_before = store()
    read()
    stored = [store() for _ in range(LOOKED_AT + 2)]
    quiet = store(provider="yfinance")
    add_points([*stored, quiet, read_before])
    assert read() == ids([*stored[-LOOKED_AT:], quiet])


@pytest.mark.parametrize(
    "garbage", [b"", b"no json", b'"text"', b'{"points": 5}', b'{"points":{"finnhub":[["x"]]}}']
)
def test_what_no_process_wrote_is_replaced(client: redis.Redis, garbage: bytes) -> None:
    before = store()
    (key,) = kept._keys(["AAPL"])
    client.set(key, garbage)
    assert read() == ids([before])
    added = store()
    add_points([added])
    read()
    assert ids(read_entries(["AAPL"], now=database_now())["AAPL"]) == ids([before, added])


def test_without_redis_the_table_is_read(settings: Settings) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    point = store()
    add_points([point])
    with capture_logs() as logs:
        assert read() == ids([point])
    assert [entry["log_level"] for entry in logs] == ["debug"]


def test_redis_that_hangs_is_not_waited_for_by_each_caller(settings: Settings) -> None:
    point = store()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.REDIS_URL = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        assert read() == ids([point])
        began = time.monotonic()
        for _ in range(10):
            assert read() == ids([point])
        assert time.monotonic() - began < 5 * ANSWER_TIMEOUT_S


def test_postgresql_that_goes_away_after_the_commit_costs_no_more_than_the_entry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    point = store()
    connection.close()
    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setitem(connection.settings_dict, "HOST", "/nowhere")
        add_points([point])
    assert [entry["event"] for entry in logs] == ["last_points.not_kept"]


def test_connection_that_redis_has_closed_is_made_anew(
    client: redis.Redis, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    point = store()
    now = database_now()
    last_points(["AAPL"], now=now)
    client.client_kill_filter(_type="normal", skipme=True)
    with django_assert_num_queries(0):
        assert ids(last_points(["AAPL"], now=now)["AAPL"]) == ids([point])


def test_nothing_is_kept_where_nothing_is_reused(settings: Settings, client: redis.Redis) -> None:
    settings.LATEST_REUSE_S = 0
    add_points([store()])
    read()
    assert not list(client.scan_iter(f"{kept.PREFIX}:*"))


_KILLED = """
import os, signal
from prices.fetching import last_points
from prices.latest import fetch

last_points.PREFIX = os.environ["PREFIX"]
fetch.add_points = lambda points: os.kill(os.getpid(), signal.SIGKILL)
fetch.fetch_prices("simulated", ["SIM-KILLED"], print, reuse_s=0)
"""


def test_process_that_is_killed_between_its_commit_and_the_entry_hides_its_point_for_a_moment_only() -> None:
    before = store("SIM-KILLED", "simulated")
    assert read("SIM-KILLED") == ids([before])
    killed = subprocess.run(
        [sys.executable, "manage.py", "shell", "--no-imports", "-c", _KILLED],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": database_url(), "PREFIX": kept.PREFIX},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    stored = ids(list(PricePoint.objects.all()))
    assert len(stored) == 2
    assert read("SIM-KILLED", later=REUSED) == stored


@hypothesis_settings(max_examples=examples(100))
@given(
    st.lists(st.sampled_from(["store", "store and die", "read", "begin", "complete"]), max_size=12),
    st.randoms(),
)
def test_entry_is_what_the_table_has_whatever_the_order(steps: list[str], chance: random.Random) -> None:
    symbol = f"X{uuid.uuid4().hex[:12]}"
    begun, in_table, lost = None, [], set()
    for step in steps:
        if step.startswith("store"):
            point = store(symbol, chance.choice(PROVIDERS))
            if step == "store":
                add_points([point])
            else:
                lost.add(str(point.id))
        elif step == "begin":
            begun, in_table = begin_entries([symbol]), _table(symbol)
        elif step == "complete" and begun:
            begun.complete(in_table, now=database_now())
        else:
            read(symbol)
    found = read(symbol)
    # What was lost may be there or not; all else is, as far as there is room.
    known = [point for point in _table(symbol) if str(point.id) in found or str(point.id) not in lost]
    of_each = [[point for point in known if point.provider == name][:LOOKED_AT] for name in PROVIDERS]
    assert found == ids([point for points in of_each for point in points])


def _table(symbol: str) -> list[PricePoint]:
    return list(PricePoint.objects.filter(symbol=symbol).order_by("-id"))
