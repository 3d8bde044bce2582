"""The command rebuild_averages: what it takes, tells and ends with."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, TypeAlias
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection

from consumers.management import progress
from prices.models import SymbolAverage
from tests.consumers.locks import held_lock
from tests.consumers.samples import assert_averages_right, event, events, point
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
PRICES = ["100", "101", "99", "102", "98", "103"]

Start: TypeAlias = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def points(transactional_db: None) -> None:
    """Six points of SIM-A and one of SIM-B, none of them averaged."""
    for number, price in enumerate(PRICES):
        point(number, price=price)
    point(0, symbol="SIM-B")


@pytest.fixture
def start(transactional_db: None) -> Iterator[Start]:
    """Yield a function that starts the command as a process, on the database of the test."""
    started: list[subprocess.Popen[str]] = []

    def start(address: str | None = None, **streams: Any) -> "subprocess.Popen[str]":
        own = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
        started.append(
            subprocess.Popen(
                [sys.executable, "manage.py", "rebuild_averages"],
                cwd=settings.BASE_DIR,
                env=os.environ | {"DATABASE_URL": address or urlunsplit(own)},
                stdin=subprocess.DEVNULL,
                text=True,
                **streams,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def is_waiting() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'rebuild_averages'"
            " AND datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(cursor.fetchone() == (1,))


@pytest.mark.usefixtures("points")
def test_command_tells_its_counts(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("rebuild_averages")
    printed = capsys.readouterr()
    counted = dict(line.rsplit(maxsplit=1) for line in printed.out.splitlines()[:4])
    assert counted == {"looked at": "7", "inserted": "7", "corrected": "0", "unchanged": "0"}
    assert printed.out.splitlines()[-1].startswith("2 chunks; the longest held its locks for ")
    assert printed.err == ""
    assert_averages_right([*events(PRICES), event(0, symbol="SIM-B")])


@pytest.mark.usefixtures("points")
def test_command_answers_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("rebuild_averages", symbol="sim-a", json=True)
    SymbolAverage.objects.filter(average=Decimal(100)).update(average=Decimal(1))
    capsys.readouterr()
    call_command("rebuild_averages", symbol="sim-a", json=True)
    report = json.loads(capsys.readouterr().out)
    assert report.pop("longest_chunk_ms") >= 0
    assert report == {
        "looked_at": 6,
        "inserted": 0,
        "corrected": 1,
        "unchanged": 5,
        "complete": True,
        "chunks": 1,
    }


@pytest.mark.usefixtures("points")
def test_command_takes_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("rebuild_averages", since="2026-01-05T13:00:00.004+01:00", json=True)
    assert json.loads(capsys.readouterr().out)["inserted"] == 2


@pytest.mark.usefixtures("points")
def test_output_that_is_no_terminal_gets_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EACH_S", 0.0)
    call_command("rebuild_averages", symbol="SIM-A", json=True)
    printed = capsys.readouterr()
    assert json.loads(printed.out)["inserted"] == 6
    assert printed.err.splitlines() == ["0 of 1 symbols, 6 rows", "1 of 1 symbols, 6 rows"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"symbol": "no symbol"}, "--symbol takes"),
        ({"since": "yesterday"}, "--since takes"),
        ({"since": "2026-01-05T12:00:00"}, "--since takes"),
        ({"since": "2026-13-05T12:00:00Z"}, "--since takes"),
    ],
)
def test_wrong_usage_is_refused(options: dict[str, str], says: str) -> None:
    with pytest.raises(CommandError, match=says) as caught:
        call_command("rebuild_averages", **options)
    assert caught.value.returncode == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.usefixtures("points")
def test_signal_ends_it_after_its_chunk(start: Start, number: signal.Signals) -> None:
    with held_lock("SIM-A"):
        process = start()
        wait_until(is_waiting)
        process.send_signal(number)
    out, err = process.communicate(timeout=180)
    assert process.returncode == 1
    assert "inserted                6" in out
    assert (
        err == "CommandError: Stopped before the end. What is written is right; run it again for the rest.\n"
    )
    assert_averages_right(events(PRICES))


@pytest.mark.usefixtures("points")
def test_second_command_says_that_one_is_running(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    with held_lock("SIM-A"):
        first = start()
        wait_until(is_waiting)
        monkeypatch.setattr("consumers.averages.connection.LOCK_TIMEOUT_MS", 20)
        with pytest.raises(CommandError, match="another rebuild_averages is running"):
            call_command("rebuild_averages")
    assert first.wait(20) == 0


def test_postgresql_that_is_away_is_told_in_one_line(start: Start) -> None:
    process = start("postgres://nobody@127.0.0.1:1/none")
    out, err = process.communicate(timeout=180)
    assert (process.returncode, out) == (1, "")
    assert err.startswith("CommandError: Not done: PostgreSQL does not answer (")
    assert err.count("\n") == 1


@pytest.mark.usefixtures("points")
def test_terminal_gets_a_bar_and_then_the_counts(start: Start) -> None:
    ours, theirs = pty.openpty()
    process = start(stdout=theirs, stderr=theirs)
    os.close(theirs)
    printed = b""
    # On Linux reading fails once the other side is closed.
    try:
        while piece := os.read(ours, 4096):
            printed += piece
    except OSError:
        pass
    os.close(ours)
    assert process.wait(20) == 0
    assert "━" in printed.decode()
    assert b"2 of 2 symbols, 7 rows" in printed
    assert b"inserted                7" in printed
