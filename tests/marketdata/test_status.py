"""manage.py status on the real parts: what it shows, and what it calls not right."""

import json
import os
import re
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client, override_settings
from django.utils import timezone
from pytest_django import Settings

from consumers.averages.store import AverageStore
from consumers.handler import AverageHandler
from consumers.reading import lag
from marketdata import health, status
from marketdata.status import read_status
from prices.clock import database_now
from prices.database.uuid7 import first_id_at
from prices.jobs.services import delete_job, pause_job, stop_job
from prices.ledger.runs import claim_slots
from prices.maintenance.partitions import make_partitions
from prices.models import BeatTerm, ClockDifference, DeadLetter, PollRun, PricePoint, SymbolAverage
from tests.conftest import MakeJob
from tests.consumers.running import commit, running, send, trim
from tests.consumers.samples import point, produce
from tests.redis_troubles import admin_of, full
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("topic", "heartbeats", "partitions"),
]
Show = Callable[..., str]


@pytest.fixture
def heartbeats(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("HEARTBEAT_DIR", str(tmp_path))


@pytest.fixture(autouse=True)
def forget_clients() -> None:
    health.forget_clients()


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Show:
    """Return a function that runs the command and gives what it shows, well or not."""

    def run(*arguments: str, problem: str | None = None) -> str:
        if problem is None:
            call_command("status", *arguments)
        else:
            with pytest.raises(CommandError, match=problem) as caught:
                call_command("status", *arguments)
            assert caught.value.returncode == 1
            assert "\n" not in str(caught.value)
        return capsys.readouterr().out

    return run


@pytest.fixture(autouse=True)
def beat_term(transactional_db: None) -> BeatTerm:
    """Let a beat lead through each test."""
    now = timezone.now()
    later = now + timedelta(hours=1)
    return BeatTerm.objects.create(holder="host:1", began_at=now, renewed_at=later, until=later)


def led_s_ago(leader: str, text: str) -> float:
    (age_s,) = re.findall(rf"{leader} led (\d+\.\d) s ago", text)
    return float(age_s)


def problems() -> str:
    return "; ".join(read_status(now=timezone.now()).problems)


def add_letter() -> DeadLetter:
    return DeadLetter.objects.create(
        topic="t", partition=0, offset=0, message_timestamp=datetime.now(UTC), group="g", reason="r"
    )


def test_empty_service_is_well(show: Show) -> None:
    found = json.loads(show("--json"))
    assert (found["ok"], found["problems"]) == (True, [])
    assert found["parts"] == dict.fromkeys(
        ["postgresql", "migrations", "partitions", "redis", "kafka", "stream", "processes", "clocks"], "ok"
    )
    assert found["jobs"] == {"active": 0, "paused": 0, "stopped": 0}
    assert found["outbox"] == {"points": 0, "oldest_age_s": None}
    assert found["last_average"] is None
    assert found["consumer"]["lag"] == 0


def test_calendar_that_ends_soon_is_noted(show: Show, make_job: MakeJob) -> None:
    make_job(["RELIANCE.NS", "AAPL", "BTC-USD"], provider="yfinance")
    before, soon = datetime(2026, 10, 31, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
    assert read_status(now=before).notes == []
    (note,) = read_status(now=soon).notes
    assert note.startswith("calendar XBOM: holidays are known until 2026-12-31; then its usual week goes on")


def test_active_jobs_without_a_beat_are_a_problem(show: Show, make_job: MakeJob, beat_term: BeatTerm) -> None:
    BeatTerm.objects.update(renewed_at=timezone.now() - timedelta(seconds=1))
    job = make_job()
    assert 1 <= led_s_ago("host:1", show()) <= 10
    BeatTerm.objects.update(renewed_at=timezone.now() - timedelta(seconds=11))
    assert "none has led for over 10 s" in problems()
    BeatTerm.objects.all().delete()
    assert "none led yet" in show(problem="none has led for over 10 s")
    pause_job(job.id)
    assert problems() == ""


def test_last_term_tells_who_leads_also_where_the_clock_was_set_back(
    show: Show, make_job: MakeJob, beat_term: BeatTerm
) -> None:
    make_job()
    then = timezone.now() - timedelta(seconds=11)
    BeatTerm.objects.create(holder="host:2", began_at=then, renewed_at=then, until=then)
    assert led_s_ago("host:2", show(problem="none has led for over 10 s")) >= 11


def test_beat_that_leads_just_now_led_at_no_later_time(show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    look = health.check_parts

    def look_while_beat_renews() -> Sequence[health.PartHealth]:
        found = look()
        BeatTerm.objects.update(renewed_at=database_now())
        return found

    monkeypatch.setattr(status, "check_parts", look_while_beat_renews)
    assert json.loads(show("--json"))["beat"]["age_s"] >= 0


def test_lead_by_a_clock_that_was_ahead_is_told_as_such(show: Show) -> None:
    assert "host:1 led by a clock that was 3" in show()


def test_status_tells_what_there_is(show: Show, make_job: MakeJob) -> None:
    claim_slots([make_job().id], now=timezone.now())
    pause_job(make_job(["SIM-B"]).id)
    stop_job(make_job(["SIM-C"]).id)
    deleted = make_job(["SIM-D"])
    stop_job(deleted.id)
    delete_job(deleted.id)
    point(0, published=False)
    PricePoint.objects.update(received_at=timezone.now() - timedelta(seconds=3))
    with running(AverageHandler(AverageStore())):
        produce([point(1)])
        wait_until(SymbolAverage.objects.exists)
    send([b"x"] * 3, partition=1)
    found = json.loads(show("--json"))
    assert found["jobs"] == {"active": 1, "paused": 1, "stopped": 1}
    assert found["open_runs"] == 1
    assert found["outbox"]["points"] == 1
    assert 3 <= found["outbox"]["oldest_age_s"] < 10
    assert 0 <= found["last_average"]["age_s"] < 10
    consumer = found["consumer"]
    assert (consumer["group"], consumer["lag"]) == (django_settings.KAFKA_CONSUMER_GROUP, 3)
    assert [each["lag"] for each in consumer["partitions"]].count(3) == 1
    text = show()
    assert "1 active, 1 paused, 1 stopped" in text
    assert "3 messages behind" in text
    assert ["outbox", "1", "points,"] in [line.split()[:3] for line in text.splitlines()]


def test_dead_letters_are_not_right_until_replayed(show: Show) -> None:
    letter = add_letter()
    assert "1 not replayed" in show(problem="dead letters: replay or discard")
    letter.replayed_at = timezone.now()
    letter.save(update_fields=["replayed_at"])
    assert "0 not replayed" in show()


def test_dead_letters_without_room_for_more_are_named(settings: Settings) -> None:
    letter = add_letter()
    letter.value, letter.replayed_at = os.urandom(1_100_000), timezone.now()
    letter.save()
    assert problems() == ""
    settings.DEAD_LETTERS_MAX_MB = 1
    assert problems().startswith("consumer: dead letters take 1 MB, and DEAD_LETTERS_MAX_MB allows 1")


def test_point_that_the_sweep_should_have_sent_is_not_right() -> None:
    point(0, published=False)
    PricePoint.objects.update(received_at=timezone.now() - timedelta(seconds=5))
    assert problems() == ""
    PricePoint.objects.update(received_at=timezone.now() - timedelta(seconds=16))
    assert problems().startswith("outbox: a point has waited for over 15 s")


def test_poll_that_stays_open_is_not_right(make_job: MakeJob) -> None:
    claim_slots([make_job().id], now=timezone.now())
    assert problems() == ""
    PollRun.objects.update(started_at=timezone.now() - timedelta(seconds=151))
    assert problems().startswith("polls: one has been open for over 150 s")


def test_messages_that_nobody_consumes_are_not_right() -> None:
    send([b"x"], partition=0)
    assert problems().startswith("consumer: messages wait")


def test_position_that_is_gone_is_not_right() -> None:
    send([b"x"] * 8, partition=2)
    commit(3, partition=2)
    trim(2, before=6)
    assert "no longer has the group's position in partition 2" in problems()


def test_redis_away_is_named_and_the_rest_shown(show: Show, settings: Settings) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1"
    found = json.loads(show("--json", problem="redis: cannot be reached"))
    assert found["parts"]["redis"] == "cannot be reached"
    assert found["consumer"]["lag"] == 0


def test_redis_that_refuses_writes_is_named_in_its_own_words(show: Show, settings: Settings) -> None:
    with admin_of(settings.REDIS_URL) as admin, full(admin):
        show(problem="redis: answers: OOM command not allowed when used memory > 'maxmemory'")


def test_kafka_away_is_named_and_the_rest_shown(show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lag, "TIMEOUT_S", 0.3)
    with override_settings(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1"):
        found = json.loads(show("--json", problem="kafka: "))
    assert found["consumer"] is None
    assert found["dead_letters"] == 0


def test_postgresql_away_is_named_and_the_rest_shown(show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    connection.close()
    with monkeypatch.context() as patch:
        patch.setitem(connection.settings_dict, "PORT", "1")
        found = json.loads(show("--json", problem="postgresql: cannot be reached"))
    assert (found["jobs"], found["outbox"], found["last_average"]) == (None, None, None)
    assert found["consumer"]["lag"] == 0


def test_rows_in_no_days_partition_are_shown(show: Show) -> None:
    point(0)
    days = "2026-01-05 to 2026-01-05"
    assert f"unpartitioned price_points: rows of {days} lie in no partition of their time" in show()
    assert json.loads(show("--json"))["unpartitioned"] == {"price_points": ["2026-01-05", "2026-01-05"]}


def test_partition_that_is_missing_is_named(show: Show) -> None:
    name = f"poll_runs_{database_now().date() + timedelta(days=2):%Y%m%d}"
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE {name}")
    show(problem=f"partitions: no {name} yet: is `maintenance` running")
    make_partitions(database_now().date())
    show()


def test_topic_that_is_missing_is_named(show: Show) -> None:
    with override_settings(KAFKA_TOPIC="no-such-topic"):
        found = json.loads(show("--json", problem="there is no topic no-such-topic"))
    assert found["consumer"] is None


def test_clock_that_was_set_back_is_named(show: Show) -> None:
    now = timezone.now()
    noted = BeatTerm.objects.create(holder="x", began_at=now, renewed_at=now, until=now, clock_ahead_s=3600.0)
    show(
        problem=r"clock: PostgreSQL's was set back by 3600 s at .* UTC: what was stored before is dated up to"
    )
    BeatTerm.objects.filter(id=noted.id).update(renewed_at=now - timedelta(seconds=3601))
    show()


def test_average_of_a_time_to_come_is_not_the_last() -> None:
    later = uuid.UUID(int=first_id_at(timezone.now() + timedelta(hours=1)).int | 7 << 76 | 2 << 62)
    SymbolAverage.objects.create(event_id=later, symbol="SIM-A", price=1, window_size=1, provider="simulated")
    stored = read_status(now=timezone.now()).stored
    assert stored is not None
    assert stored.last_average is None


def test_processes_whose_clocks_differ_are_named(show: Show, client: Client) -> None:
    ClockDifference.objects.create(process="poller-finnhub@b", ahead_s=8.04, noted_at=timezone.now())
    told = r"differ from PostgreSQL's: poller-finnhub@b by \+8.0 s"
    show(problem=f"clocks: {told}")
    body = client.get("/readyz").json()
    assert body["status"] == "degraded"
    assert re.fullmatch(told, body["parts"]["clocks"])
