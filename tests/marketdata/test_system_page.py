"""The page of the system, with all parts and without some."""

import time
from datetime import timedelta
from html import unescape
from typing import Any
from unittest.mock import Mock

import pytest
from django.db import connection
from django.test import Client, override_settings

from marketdata import health, system_page
from marketdata.health import PARTS
from marketdata.status import read_status
from prices.clock import database_now
from prices.models import PollGap
from tests.conftest import MakeJob

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("topic", "partitions"),
]
AWAY = "127.0.0.1:1"


@pytest.fixture(autouse=True)
def _look_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("HEARTBEAT_DIR", str(tmp_path))
    health.forget_clients()
    system_page.forget_status()


def read(client: Client) -> str:
    answer = client.get("/pages/system")
    assert answer.status_code == 200
    return unescape(answer.content.decode())


def test_each_part_has_a_sentence() -> None:
    assert system_page.WELL.keys() == PARTS.keys()


def test_page_says_that_all_is_well(client: Client) -> None:
    shown = read(client)
    assert "all is well" in shown
    assert "No slot was left out." in shown
    assert "not right" not in shown


def test_slots_of_the_last_day_are_counted_by_reason(client: Client, make_job: MakeJob) -> None:
    job, now = make_job(["SIM-A"]), database_now()
    before, lately = now - timedelta(hours=25), now - timedelta(hours=1)
    # One each hour from 25 hours ago: the first is older than the day.
    PollGap.objects.create(
        job=job, from_due=before, to_due=before + timedelta(hours=9), slots=10, reason="outage"
    )
    PollGap.objects.create(job=job, from_due=lately, to_due=lately, slots=1, reason="budget")
    stored = read_status(now=now).stored
    assert stored is not None
    assert stored.missed_slots == {"outage": 9, "budget": 1}
    assert "<code>outage</code>" in read(client)


def test_without_redis_and_kafka_the_page_says_so(client: Client) -> None:
    redis_url = f"redis://:never-to-be-shown@{AWAY}"
    asked_at = time.monotonic()
    # Until the topic is deleted, and no longer.
    with override_settings(REDIS_URL=redis_url, KAFKA_BOOTSTRAP_SERVERS=AWAY):
        shown = read(client)
    assert time.monotonic() - asked_at < system_page.MOST_S + health.PART_TIMEOUT_S + 1
    assert "redis: cannot be reached" in shown
    # They could not be compared.
    assert system_page.WELL["clocks"] not in shown
    assert "Not known: Kafka did not tell." in shown
    assert "never-to-be-shown" not in shown


def test_without_postgresql_the_page_is_still_shown(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict, "HOST", "127.0.0.1")
    monkeypatch.setitem(connection.settings_dict, "PORT", "1")
    connection.close()
    shown = read(client)
    assert "postgresql: cannot be reached" in shown
    assert "Not known: PostgreSQL did not tell." in shown


def test_many_readers_cost_one_look(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    look = Mock(wraps=read_status)
    monkeypatch.setattr(system_page, "KEPT_S", 60)
    monkeypatch.setattr(system_page, "read_status", look)
    read(client)
    read(client)
    look.assert_called_once_with()
