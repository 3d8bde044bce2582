import json
import threading

import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from pytest_django import Settings

from prices.jobs.services import stop_job
from prices.maintenance.prepare import alone, ensure_admin, ensure_demo_job
from prices.models import PollJob

pytestmark = pytest.mark.django_db(transaction=True)


def test_prepare_twice_shows_the_password_once(topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("prepare", "--demo", "--json")
    first = json.loads(capsys.readouterr().out)
    call_command("prepare", "--demo", "--json")
    second = json.loads(capsys.readouterr().out)
    assert authenticate(username="admin", password=first["admin"]["password"]) is not None
    assert second == {
        "admin": {"username": "admin", "password": None},
        "demo_job": first["demo_job"],
        "topic": topic,
    }
    assert PollJob.objects.count() == 1


def test_prepare_reports_as_text(topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("prepare")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tables      ready"
    assert lines[1] == f"topic       {topic}"
    assert lines[2].endswith("(shown this once)")
    assert not PollJob.objects.exists()


def test_prepare_without_kafka_says_where_it_looked(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.KAFKA_BOOTSTRAP_SERVERS = "127.0.0.1:1"
    monkeypatch.setattr("prices.publishing.topic.TIMEOUT_S", 0.5)
    with pytest.raises(CommandError, match=r"Kafka at 127\.0\.0\.1:1: "):
        call_command("prepare")
    assert not User.objects.exists()


def test_admin_with_given_password_is_not_shown() -> None:
    assert ensure_admin("a-password-of-mine") is None
    assert authenticate(username="admin", password="a-password-of-mine") is not None


def test_demo_job_stopped_by_its_user_stays_stopped() -> None:
    job_id = ensure_demo_job()
    stop_job(job_id)
    assert ensure_demo_job() == job_id
    assert PollJob.objects.get().status == "stopped"


def test_two_preparations_wait_for_each_other() -> None:
    entered = threading.Event()

    def prepare() -> None:
        with alone():
            entered.set()
        connection.close()

    with alone():
        second = threading.Thread(target=prepare)
        second.start()
        assert not entered.wait(0.2)
    assert entered.wait(5)
    second.join()


def test_ensure_topic_reports_what_it_did(topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("ensure_topic")
    assert capsys.readouterr().out == f"{topic}: exists\n"
