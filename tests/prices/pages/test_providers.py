"""The page of the providers: what it says of keys, breakers, budgets, faults and jobs."""

import re
import time
from datetime import datetime, timedelta
from html import unescape

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from prices.clock import database_now
from prices.database.uuid7 import new_ids
from prices.ledger.runs import skip_slots
from prices.models import ApiClient, PollJob, RawMarketData
from prices.models.raw_market_data import Outcome
from prices.pages.providers import outcomes
from providers.base import ErrorKind, ProviderError
from providers.rate_limits.budget import SentTimes
from providers.rate_limits.permits import Caller, Granted, report_outcome, request_permit
from tests.conftest import MakeJob

pytestmark = pytest.mark.django_db
BROKEN = ProviderError(kind=ErrorKind.UPSTREAM_ERROR, message="no answer")
LIMITED = ProviderError(kind=ErrorKind.RATE_LIMITED, message="too many", retry_after=30)


@pytest.fixture(autouse=True)
def _keys(settings: Settings) -> None:
    settings.FINNHUB_API_KEY = "never-to-be-shown"
    settings.ALPHA_VANTAGE_API_KEY = ""
    settings.PROVIDER_BUDGETS = {
        "alpha_vantage": "1/1s,25/1d",
        "finnhub": "60/1m,1000/1d",
        "yfinance": "30/1m",
        "simulated": "none",
    }


def told(client: Client) -> dict[str, str]:
    """Return the text of each provider's part of the page."""
    answer = client.get("/pages/providers")
    assert answer.status_code == 200
    parts = re.findall(
        r'<section class="card" id="(\w+)".*?>(.*?)</section>', answer.content.decode(), re.DOTALL
    )
    return {name: " ".join(unescape(re.sub(r"<.*?>", " ", part)).split()) for name, part in parts}


def send(
    provider: str, result: ProviderError | None = None, *, caller: Caller = "job", times: int = 1
) -> None:
    """Count requests, and report what became of them."""
    for _ in range(times):
        permit = request_permit(provider, caller=caller, load_history=lambda *_: SentTimes([], []))
        assert isinstance(permit, Granted)
        if result is not None:
            report_outcome(permit, {"AAPL": result}, answer=None)


def add_answer(
    provider: str, outcome: Outcome, *, message: str = "", received_at: datetime | None = None
) -> RawMarketData:
    return RawMarketData.objects.create(
        id=new_ids(1)[0],
        provider=provider,
        symbols=["AAPL"],
        url="https://example.org/",
        outcome=outcome,
        message=message,
        received_at=received_at or database_now(),
        latency_ms=1.0,
    )


def test_untouched_service_says_what_each_provider_takes(client: Client) -> None:
    page = told(client)
    assert list(page) == ["alpha_vantage", "finnhub", "yfinance", "simulated"]
    assert "no key It is not asked: set ALPHA_VANTAGE_API_KEY" in page["alpha_vantage"]
    assert "1 request a second 25 requests a day Nothing is used without a key." in page["alpha_vantage"]
    assert "not asked yet Its breaker is closed" in page["finnhub"]
    assert "Key: set by FINNHUB_API_KEY ." in page["finnhub"]
    assert "Needs no key." in page["yfinance"]
    assert "Makes up prices itself" in page["simulated"]
    assert all("No job asks it." in text and "Nothing was asked." in text for text in page.values())


def test_no_key_is_on_the_page(client: Client) -> None:
    send("finnhub", BROKEN)
    assert b"never-to-be-shown" not in client.get("/pages/providers").content


def test_budget_tells_what_is_used_reserved_and_left(client: Client) -> None:
    send("finnhub", times=3)
    send("finnhub", caller="latest", times=2)
    text = told(client)["finnhub"]
    back = r"left; the oldest is given back in (1 d|23 h 59 min|1 min|\d+ s)"
    used = "5 used , 2 of them by GET latest ,"
    assert re.search(rf"60 requests a minute {used} 55 {back}", text), text
    assert re.search(rf"1,000 requests a day {used} 198 reserved for GET latest , 995 {back}", text), text
    page = client.get("/pages/providers").content.decode()
    assert '<rect class="latest" x="5.00%" width="3.33%" height="10"/>' in page


@pytest.mark.usefixtures("long_cooldown")
def test_breaker_is_told_in_words(client: Client, settings: Settings) -> None:
    settings.BREAKER_FAILURES = 2
    send("finnhub", BROKEN)
    assert "works 1 failure in a row; at 2 its breaker opens" in told(client)["finnhub"]
    send("finnhub", BROKEN)
    text = told(client)["finnhub"]
    assert re.search(
        r"left alone Its breaker is open since 20\S+ \S+ UTC , after 2 failures in a row."
        r" It is tried again in (30|[345]\d) min",
        text,
    ), text
    assert "Last error: upstream_error, 20" in text


def test_refusal_for_the_limit_is_told(client: Client) -> None:
    send("yfinance", LIMITED)
    assert re.search(
        r"waits It refused a request for its limit. Nothing is sent for another (30|29) s\.",
        told(client)["yfinance"],
    )


def test_redis_that_is_away_is_told_soon(client: Client, settings: Settings) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1"
    began = time.monotonic()
    page = told(client)
    assert time.monotonic() - began < 5
    assert "not known Redis cannot be reached. Breakers and budgets are kept there" in page["finnhub"]
    assert "How much is used is not known." in page["yfinance"]
    assert "no key" in page["alpha_vantage"]
    assert "works" in page["simulated"]


def test_faults_of_the_last_hour_are_counted(client: Client, make_job: MakeJob) -> None:
    add_answer("finnhub", Outcome.QUOTE)
    add_answer("finnhub", Outcome.UPSTREAM_ERROR, message="HTTP 500")
    add_answer("finnhub", Outcome.UPSTREAM_ERROR, message="HTTP <b>502</b>")
    job = make_job(["AAPL"], provider="yfinance")
    skip_slots([job.id], "budget: used up")
    page = told(client)
    assert "no answer, or an error upstream_error 2 20" in page["finnhub"]
    assert "AAPL: HTTP <b>502</b> Of 3 requests." in page["finnhub"]
    assert re.search(r"polls left out skipped 1 20\S+ \S+ UTC budget: used up", page["yfinance"])
    assert b"HTTP <b>" not in client.get("/pages/providers").content


def test_fault_of_before_the_last_hour_is_left_out(client: Client) -> None:
    fault = add_answer("finnhub", Outcome.MALFORMED)
    later = database_now() + timedelta(minutes=61)
    assert outcomes.read_last_hour(["finnhub"], now=fault.received_at)["finnhub"].requests == 1
    assert outcomes.read_last_hour(["finnhub"], now=later)["finnhub"] == outcomes.LastHour()


def test_only_the_newest_of_many_requests_are_counted(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "MOST_REQUESTS", 2)
    for outcome in (Outcome.MALFORMED, Outcome.QUOTE, Outcome.QUOTE):
        add_answer("finnhub", outcome)
    assert "No error in the newest" in told(client)["finnhub"]


def test_jobs_are_listed_by_their_share(client: Client, make_job: MakeJob) -> None:
    small = make_job(["MSFT"], provider="finnhub", interval=600)
    large = make_job(["AAPL"], provider="finnhub", interval=1)
    make_job(["AAPL"], provider="finnhub", interval=1)
    page = client.get("/pages/providers").content.decode()
    linked = re.findall(r'href="/pages/jobs/([0-9a-f-]{36})"', page)
    assert linked == [str(large.id), str(small.id)]
    text = told(client)["finnhub"]
    assert "3 active jobs want" in text
    assert re.search(r"AAPL 2 equal jobs (\d+ min )?\d+ s wants 1 s 656 82 % MSFT 10 min 144 18 %", text), (
        text
    )


def test_jobs_of_a_provider_without_a_limit_are_listed(client: Client, make_job: MakeJob) -> None:
    for number in range(7):
        make_job([f"SIM-{number}"], interval=60)
    text = told(client)["simulated"]
    assert "7 active jobs, 10,080 requests a day." in text
    assert "And 2 more jobs, which use no more than these." in text


def test_jobs_of_other_clients_are_counted_and_not_named(
    client: Client, make_job: MakeJob, settings: Settings
) -> None:
    job = make_job(["SIM-SECRET"])
    PollJob.objects.filter(id=job.id).update(client=ApiClient.objects.create(name="other"))
    settings.API_AUTH = "keys"
    assert client.get("/pages/providers").status_code == 302
    client.force_login(User.objects.create_user("viewer", is_staff=True))
    assert "Of another client" in told(client)["simulated"]
    assert b"SIM-SECRET" not in client.get("/pages/providers").content


def test_page_takes_few_queries(client: Client, make_job: MakeJob) -> None:
    for number in range(12):
        make_job([f"T{number}"], provider="finnhub", interval=60 + number)
        make_job([f"SIM-{number}"])
    told(client)
    with CaptureQueriesContext(connection) as queries:
        told(client)
    assert len(queries) <= 8
