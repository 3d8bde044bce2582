"""manage.py jobs, as a person and as a script use it."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from prices.jobs.services import FETCH_STARTS_WITHIN_S, pause_job, stop_job
from prices.ledger.gaps import GapReason
from prices.ledger.runs import claim_slots
from prices.management import tables
from prices.models import PollJob
from tests.conftest import MakeJob
from tests.prices.slots_of_a_job import add_gap, add_runs

pytestmark = pytest.mark.django_db
Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command and gives what it shows."""

    def command(*arguments: object) -> str:
        call_command("jobs", *map(str, arguments))
        return capsys.readouterr().out

    return command


def refusal(run: Run, *arguments: object) -> tuple[int, str]:
    with pytest.raises(CommandError) as caught:
        run(*arguments)
    text = str(caught.value)
    assert "\n" not in text
    return caught.value.returncode, text


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def statuses(*jobs: PollJob) -> list[str]:
    return [PollJob.objects.get(id=job.id).status for job in jobs]


def test_list_without_jobs_says_so(run: Run) -> None:
    assert run("list") == "No jobs.\n"
    assert run("list", "--status", "paused") == "No such jobs.\n"


def test_list_shows_how_jobs_fare_and_what_keeps_them_back(
    run: Run, make_job: MakeJob, settings: Settings
) -> None:
    settings.FINNHUB_API_KEY = ""
    good = make_job(["SIM-A", "SIM-B", "SIM-C"], interval=90)
    blocked = make_job(["AAPL"], provider="finnhub", interval=3600)
    good.last_success_at = datetime.now(UTC) - timedelta(minutes=3, seconds=20)
    good.failures = 2
    good.save()
    lines = words(run("list"))
    short = {job.id: str(job.id)[:13] for job in (good, blocked)}
    row = f"{short[good.id]} active 1 min 30 s simulated SIM-A, SIM-B and 1 more 3 min ago 2"
    assert row.split() in lines
    assert f"{short[blocked.id]} active 1 h finnhub AAPL never 0".split() in lines
    assert f"{short[blocked.id]} not configured: set FINNHUB_API_KEY".split() in lines
    assert lines.index(row.split()) > lines.index(
        f"{short[blocked.id]} active 1 h finnhub AAPL never 0".split()
    )


def test_list_fits_eighty_columns(run: Run, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "WIDTH", 80)
    job = make_job(["A" * 32, "B" * 32, "C"], interval=86_399, provider="alpha_vantage")
    pause_job(job.id)
    job.refresh_from_db()
    job.last_success_at = datetime.now(UTC) - timedelta(minutes=59, seconds=5)
    job.save()
    text = run("list")
    assert max(map(len, text.splitlines())) <= 80
    assert words(text)[0] == ["job", "status", "every", "provider", "symbols", "last", "good", "failed"]
    assert "alpha_vantage" in text
    assert "59 min ago" in text
    assert "…" not in text


def test_list_is_chosen_by_status_provider_and_limit(run: Run, make_job: MakeJob) -> None:
    simulated, finnhub = make_job(), make_job(["AAPL"], provider="finnhub")
    served = make_job(["IBM"], provider=None)
    PollJob.objects.filter(id=served.id).update(served_by="finnhub")
    pause_job(simulated.id)

    def listed(*arguments: str) -> list[str]:
        return [row["job_id"] for row in json.loads(run("list", "--json", *arguments))]

    assert listed() == [str(job.id) for job in (served, finnhub, simulated)]
    assert listed("--status", "paused") == [str(simulated.id)]
    assert listed("--provider", "Finhub") == [str(served.id), str(finnhub.id)]
    assert listed("--limit", "1") == [str(served.id)]
    assert len(listed("--limit", "9" * 30)) == 3
    assert run("list", "--limit", "1").endswith("and 2 older ones; --limit shows more\n")
    assert refusal(run, "list", "--provider", "bloomberg")[0] == 2
    for wrong in (["--limit", "0"], ["--status", "gone"]):
        refusal(run, "list", *wrong)


def test_show_tells_all_of_a_job(run: Run, make_job: MakeJob) -> None:
    job = make_job(interval=5)
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=30)
    add_runs(job, "sshffk", interval=5, start=start)
    add_gap(job, 6, 9, interval=5, start=start)
    text = run("show", str(job.id)[:18])
    lines = words(text)
    assert ["job", str(job.id)] in lines
    assert ["symbols", "SIM-A"] in lines
    assert " 30.0 % of 10 slots got a price" in text
    assert " 2 stored, 1 shared, 2 failed, 1 skipped, 4 in gaps" in text
    failed = start + timedelta(seconds=20)
    assert f"{failed:%Y-%m-%d %H:%M:%S} failed 0.02 s 0.10 s 0 finnhub: upstream_error".split() in lines
    first, last = start + timedelta(seconds=30), start + timedelta(seconds=45)
    shown_last = f"{last:%H:%M:%S}" if first.date() == last.date() else f"{last:%Y-%m-%d %H:%M:%S}"
    assert f"{first:%Y-%m-%d %H:%M:%S} {shown_last} 4 gap down: no scheduler ran".split() in lines


def test_show_of_new_job_says_that_nothing_happened_yet(run: Run, make_job: MakeJob) -> None:
    lines = words(run("show", make_job().id))
    assert ["last", "24", "h", "no", "slots"] in lines
    assert ["last", "success", "never"] in lines
    assert lines.count(["none"]) == 2


def test_market_hours_are_told(run: Run, make_job: MakeJob) -> None:
    job = make_job(["AAPL"], interval=60, provider="yfinance", market_hours=True)
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=30)
    add_gap(job, 0, 4, GapReason.MARKET_CLOSED, interval=60, start=start)
    listed = run("list")
    assert f"{str(job.id)[:13]} active 1 min * yfinance AAPL never 0".split() in words(listed)
    assert "* in the hours of its markets, and for an hour after" in listed
    shown = run("show", job.id)
    assert ["every", "1", "min", "in", "the", "hours", "of", "its", "markets"] in words(shown)
    assert "and 5 while its markets were closed" in shown
    assert "5 market_closed market_closed: outside the hours of the job's markets" in " ".join(shown.split())
    make_job()
    assert "* in the hours" not in run("list", "--limit", "1")


def test_show_never_rounds_a_failure_away(run: Run, make_job: MakeJob) -> None:
    job = make_job()
    add_runs(job, "s" * 3999 + "f", start=datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2))
    assert "99.9 % of 4,000 slots" in run("show", job.id)


def test_show_in_json_is_the_detail_with_its_ledger(run: Run, make_job: MakeJob, api: APIClient) -> None:
    job = make_job()
    add_runs(job, "sf", start=datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=1))
    found = json.loads(run("show", job.id, "--json"))
    address = f"/jobs/{job.id}"
    ledger = {part: api.get(f"{address}/{part}").json()["results"] for part in ("runs", "gaps")}
    assert found == api.get(address).json() | ledger
    assert len(found["gaps"]) == 1


def test_jobs_are_paused_resumed_and_stopped(run: Run, make_job: MakeJob) -> None:
    first, second = make_job(), make_job(["SIM-B"])
    assert run("pause", first.id, second.id) == (
        f"{first.id}  paused: SIM-A every 1 s\n{second.id}  paused: SIM-B every 1 s\n"
    )
    assert statuses(first, second) == ["paused", "paused"]
    assert run("pause", first.id) == f"{first.id}  paused before: SIM-A every 1 s\n"
    assert run("resume", first.id) == f"{first.id}  active: SIM-A every 1 s\n"
    assert run("stop", first.id) == f"{first.id}  stopped: SIM-A every 1 s\n"
    assert run("stop", first.id) == f"{first.id}  stopped before: SIM-A every 1 s\n"
    assert statuses(first, second) == ["stopped", "paused"]


@pytest.mark.parametrize("action", ["pause", "stop"])
@pytest.mark.parametrize("wrong", ["01a20000", "xyz"])
def test_one_wrong_id_changes_nothing(run: Run, make_job: MakeJob, action: str, wrong: str) -> None:
    job = make_job()
    code, text = refusal(run, action, job.id, wrong)
    assert code == 1
    assert wrong in text
    assert text.endswith("Nothing was changed.")
    assert statuses(job) == ["active"]


@pytest.mark.parametrize("action", ["pause", "resume"])
def test_stopped_job_among_others_changes_nothing(run: Run, make_job: MakeJob, action: str) -> None:
    stopped, other = make_job(), make_job()
    stop_job(stopped.id)
    pause_job(other.id)
    code, text = refusal(run, action, other.id, stopped.id)
    assert (code, text) == (1, f"Stopped for good before: {stopped.id}. Nothing was changed.")
    assert statuses(other) == ["paused"]


def test_show_of_unknown_job_says_so(run: Run) -> None:
    assert refusal(run, "show", "01a20694") == (1, "There is no job 01a20694.")


def test_pause_of_many_jobs_waits_once_for_all_their_polls(run: Run, make_job: MakeJob) -> None:
    jobs = [make_job([f"SIM-{number}"]) for number in range(5)]
    claim_slots([job.id for job in jobs], now=timezone.now())
    began = time.monotonic()
    assert run("pause", *(job.id for job in jobs)).count("paused") == 5
    assert FETCH_STARTS_WITHIN_S <= time.monotonic() - began < 4 * FETCH_STARTS_WITHIN_S
