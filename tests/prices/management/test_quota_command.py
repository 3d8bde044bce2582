"""manage.py quota, as a person and as a script read it."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from django_celery_beat.models import PeriodicTask
from pytest_django import Settings

from prices.database.uuid7 import new_ids
from prices.models import PollJob
from providers.base import ErrorKind, ProviderError
from providers.rate_limits import breaker
from providers.rate_limits.breaker import breaker_state
from providers.rate_limits.budget import SentTimes, restore
from providers.rate_limits.permits import report_outcome
from tests.conftest import MakeJob
from tests.providers.shared_scope import granted_soon

pytestmark = pytest.mark.django_db
Show = Callable[..., str]


@pytest.fixture
def show(settings: Settings, capsys: pytest.CaptureFixture[str]) -> Show:
    """Return a function that runs the command and gives its output."""
    settings.ALPHA_VANTAGE_API_KEY = "canary-key-123456"
    settings.FINNHUB_API_KEY = ""

    def run(*arguments: str) -> str:
        call_command("quota", *arguments)
        return capsys.readouterr().out

    return run


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def add_jobs(count: int) -> None:
    tasks = PeriodicTask.objects.bulk_create(PeriodicTask(name=f"job {n}", task="x") for n in range(count))
    PollJob.objects.bulk_create(
        PollJob(
            id=job_id,
            symbols=[f"S{chr(65 + number % 26)}{chr(65 + number // 26)}"],
            interval=60,
            provider="alpha_vantage",
            periodic_task=tasks[number],
        )
        for number, job_id in enumerate(new_ids(count))
    )


def test_quota_without_jobs_shows_the_budgets(show: Show) -> None:
    restore("alpha_vantage", SentTimes(job=[timezone.now() - timedelta(hours=1)], latest=[]))
    text = show()
    assert [
        "alpha_vantage",
        "1",
        "a",
        "second",
        "0",
        "of",
        "1",
        "0",
        "20",
        "a",
        "day",
        "0",
        "a",
        "day",
    ] in words(text)
    assert ["25", "a", "day", "1", "of", "25"] in words(text)
    assert "unknown: Redis has no counts" in text
    assert "not configured: set FINNHUB_API_KEY" in text
    assert ["simulated", "none", "-", "0", "all", "-"] in words(text)
    assert text.endswith("No active jobs.\n")


@pytest.mark.usefixtures("own_counts")
def test_quota_says_that_nothing_is_sent(show: Show) -> None:
    error = ProviderError(kind=ErrorKind.RATE_LIMITED, message="the limit is reached", retry_after=7_200)
    permit = granted_soon("yfinance")
    report_outcome(permit, {"AAPL": error}, answer=None)
    text = " ".join(show("--provider", "yfinance").split())
    assert "rate limited: nothing is sent for another" in text
    (use,) = json.loads(show("--provider", "yfinance", "--json"))["budgets"]
    assert 7_000 < use["held_for_s"] <= 7_200


@pytest.mark.usefixtures("own_counts")
def test_quota_says_that_the_breaker_is_open(show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    # Both calls are to be made while it is open.
    monkeypatch.setattr(breaker, "FIRST_COOLDOWN_S", 60)
    error = ProviderError(kind=ErrorKind.UPSTREAM_ERROR, message="no answer within 3 s")
    while breaker_state("yfinance").state == "closed":
        report_outcome(granted_soon("yfinance"), {"AAPL": error}, answer=None)
    text = " ".join(show("--provider", "yfinance").split())
    assert "its breaker is open: nothing is sent for another" in text
    (use,) = json.loads(show("--provider", "yfinance", "--json"))["budgets"]
    assert 0 < use["rests_for_s"] <= 60
    assert use["held_for_s"] == 0


def test_quota_shows_what_each_job_wants_and_gets(show: Show, make_job: MakeJob) -> None:
    job = make_job(["AAPL", "MSFT"], interval=60, provider="alpha_vantage")
    make_job(["IBM"], provider="finnhub")
    lines = words(show())
    expected = f"{job.id} AAPL, MSFT alpha_vantage 2,880 20 1 min 45 min *"
    assert expected.split() in lines
    # No key at all stands before little of a budget.
    jobs = [line for line in lines if line and len(line[0]) == 36]
    assert jobs[0][1:] == ["IBM", "finnhub", "no", "key", "1", "s", "never"]


def test_quota_of_one_provider_shows_no_other(show: Show, make_job: MakeJob) -> None:
    make_job(["SIM-A"])
    text = show("--provider", "Alpha_Vantage")
    assert "simulated" not in text
    assert "finnhub" not in text


def test_quota_of_unknown_provider_is_wrong_usage(show: Show) -> None:
    with pytest.raises(CommandError) as caught:
        show("--provider", "bloomberg")
    assert caught.value.returncode == 2


def test_quota_of_many_jobs_shows_a_screen_and_tells_how_many_more(show: Show) -> None:
    add_jobs(300)
    lines = show().splitlines()
    assert len(lines) < 60
    assert lines[-2].startswith("* while the job's markets are open")
    assert lines[-1] == "and 260 more jobs, which get at least as much; --json lists all"
    found = json.loads(show("--json"))
    assert len(found["jobs"]) == 300
    assert {job["granted_per_day"] for job in found["jobs"]} == {0.067}


def test_quota_in_json_has_every_figure(show: Show, make_job: MakeJob) -> None:
    job = make_job(["AAPL", "MSFT"], interval=60, provider="alpha_vantage")
    make_job(["IBM"], provider="finnhub")
    found: dict[str, Any] = json.loads(show("--json"))
    alpha_vantage = next(use for use in found["budgets"] if use["provider"] == "alpha_vantage")
    assert (alpha_vantage["limits"], alpha_vantage["for_jobs"]) == (["1/1s", "25/1d"], 20)
    assert (alpha_vantage["jobs"], alpha_vantage["wanted"]) == (1, 2880)
    by_provider = {entry["provider"]: entry for entry in found["jobs"]}
    assert by_provider["finnhub"]["not_configured"] == "set FINNHUB_API_KEY"
    assert by_provider["alpha_vantage"]["job_id"] == str(job.id)
    assert by_provider["alpha_vantage"]["effective_interval"] == 2700


def test_quota_without_redis_says_so_and_shows_the_rest(
    show: Show, settings: Settings, make_job: MakeJob
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    make_job(["AAPL", "MSFT"], interval=60, provider="alpha_vantage")
    text = show()
    assert "unknown" in text
    assert "Redis cannot be reached" in text
    assert "2,880" in text
