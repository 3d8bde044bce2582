"""The pages of the jobs: what they show, and what is done from them."""

import re
from datetime import timedelta
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from prices.clock import database_now
from prices.jobs.services import stop_job
from prices.ledger.gaps import GapReason
from prices.ledger.grid import run_id_of
from prices.models import JobStatus, PollGap, PollJob, PollRun
from prices.pages import listening
from prices.pages.jobs.rows import ROWS
from prices.pages.jobs.strips import strips_of
from tests.conftest import MakeJob

pytestmark = pytest.mark.django_db
MINUTE = timedelta(minutes=1)


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Client:
    """Return a client of a service that nobody but this machine reaches; it checks CSRF tokens."""
    monkeypatch.setattr(listening, "listening_hosts", lambda: {"127.0.0.1"})
    settings.ALLOWED_HOSTS = ["localhost"]
    return Client(headers={"host": "localhost"}, enforce_csrf_checks=True)


def send(client: Client, address: str, **values: str) -> str:
    """Send a form as a browser does, with the token of its page, and return where it leads to."""
    page = client.get(address).content.decode()
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    assert token, page
    answer = client.post(address, {"csrfmiddlewaretoken": token[1], **values})
    assert answer.status_code == 302, answer.content.decode()
    return str(answer["Location"])


def page_of(job: PollJob) -> str:
    return f"/pages/jobs/{job.id}"


def test_list_shows_jobs_that_go_on_and_others_by_a_filter(client: Client, make_job: MakeJob) -> None:
    going_on, stopped = make_job(["SIM-A"]), make_job(["SIM-B"])
    stop_job(stopped.id)
    first = client.get("/pages/jobs").content.decode()
    assert f'data-job="{going_on.id}"' in first
    assert f'data-job="{stopped.id}"' not in first
    assert f'data-job="{stopped.id}"' in client.get("/pages/jobs?status=stopped").content.decode()
    found = client.get("/pages/jobs?status=all&symbol=sim-b").content.decode()
    assert re.findall(r'data-job="(.+?)"', found) == [str(stopped.id)]
    assert "is not a symbol" in client.get("/pages/jobs?symbol=<b>").content.decode()


def queries_of(captured: CaptureQueriesContext) -> int:
    """Return how many were asked, but for the time, which is asked for now and then."""
    return sum("clock_timestamp()" not in each["sql"] for each in captured.captured_queries)


def test_list_is_paged_and_takes_no_query_for_each_job(client: Client, make_job: MakeJob) -> None:
    make_job(["SIM-A"])
    with CaptureQueriesContext(connection) as few:
        client.get("/pages/jobs")
    made = [make_job([f"SIM-{number}"]) for number in range(ROWS)]
    client.get("/pages/jobs")
    with CaptureQueriesContext(connection) as many:
        page = client.get("/pages/jobs").content.decode()
    assert queries_of(many) <= queries_of(few), [q["sql"][:300] for q in many.captured_queries]
    assert re.findall(r'data-job="(.+?)"', page) == [str(job.id) for job in reversed(made)]
    following = re.search(r'href="(\?before=[^"]+)"', page)
    assert following
    assert len(re.findall("data-job=", client.get(f"/pages/jobs{following[1]}").content.decode())) == 1


def test_strip_tells_what_became_of_each_minute(make_job: MakeJob) -> None:
    job = make_job(["SIM-A"], interval=30)
    now = database_now()
    start = now.replace(second=0, microsecond=0)
    for ago, second, state, reason in (
        (9, 1, "stored", ""),
        (9, 31, "shared", ""),
        (8, 1, "stored", ""),
        (8, 31, "skipped", "budget"),
        (7, 1, "failed", "budget"),
    ):
        due_at = start - ago * MINUTE + timedelta(seconds=second)
        PollRun.objects.create(
            id=run_id_of(job.id, due_at),
            job=job,
            due_at=due_at,
            state=state,
            reason=reason,
            started_at=due_at,
            finished_at=due_at,
        )
    for ago, reason in ((70, GapReason.DOWN), (5, GapReason.PAUSED), (3, GapReason.MARKET_CLOSED)):
        first = start - ago * MINUTE + timedelta(seconds=1)
        # The first one lies in the hour with its last three minutes alone.
        slots = 28 if ago == 70 else 2
        PollGap.objects.create(
            job=job,
            from_due=first,
            to_due=first + (slots - 1) * timedelta(seconds=30),
            slots=slots,
            reason=str(reason),
        )
    strip = strips_of([job.id], now=now)[job.id]
    assert len(strip.minutes) == 60
    told = {59 - place: each.outcome for place, each in enumerate(strip.minutes) if each.outcome != "none"}
    assert told == {
        9: "polled",
        8: "some",
        7: "missed",
        5: "paused",
        3: "closed",
        59: "missed",
        58: "missed",
        57: "missed",
    }
    assert strip.missed == 8
    words = str(strip)
    assert words.startswith("3 of 11 polled; 8 missed: down: no scheduler ran from ")
    assert f"budget from {start - 8 * MINUTE:%H:%M} to {start - 7 * MINUTE:%H:%M} UTC" in words
    assert words.endswith("2 while paused; 2 left out while markets were closed")


def test_job_is_made_once_and_its_page_says_so(local: Client) -> None:
    values = {"symbols": "sim-a, sim-b", "interval": "5", "provider": "simulated", "once": str(uuid4())}
    address = send(local, "/pages/jobs/new", **values)
    assert send(local, "/pages/jobs/new", **values) == address
    job = PollJob.objects.get()
    assert (job.symbols, job.interval, job.provider) == (["SIM-A", "SIM-B"], 5, "simulated")
    assert address == page_of(job)
    page = local.get(address).content.decode()
    assert "The job is made" in page
    assert "The job is made" not in local.get(address).content.decode()
    assert 'href="/pages/symbols/SIM-A"' in page


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"symbols": "SIM-A, §"}, "symbols", "§ is not a symbol."),
        ({"symbols": ","}, "symbols", "Name one symbol or more."),
        ({"symbols": "SIM-A AAPL"}, "symbols", "mixes simulated and real symbols"),
        ({"symbols": "SIM-A", "interval": "soon"}, "interval", "is not a whole number"),
        ({"symbols": "SIM-A", "interval": "0"}, "interval", "is out of range"),
        ({"symbols": "SIM-A", "provider": "nobody"}, "provider", "is not a provider"),
    ],
)
def test_fault_is_told_beside_its_field_and_nothing_is_lost(
    values: dict[str, str],
    field: str,
    words: str,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
) -> None:
    monkeypatch.setattr(listening, "listening_hosts", lambda: {"127.0.0.1"})
    settings.ALLOWED_HOSTS = ["localhost"]
    sent = {"symbols": "SIM-A", "interval": "7"} | values
    answer = client.post("/pages/jobs/new", sent, headers={"host": "localhost"})
    page = answer.content.decode()
    assert answer.status_code == 400
    assert words in re.findall(rf'id="{field}-error">(.*?)<', page)[0]
    assert f">{sent['symbols']}</textarea>" in page
    assert not PollJob.objects.exists()


def test_planner_answers_and_makes_nothing(local: Client, settings: Settings) -> None:
    settings.ALPHA_VANTAGE_API_KEY = ""
    page = local.get("/pages/jobs/new?symbols=SIM-A&interval=1&provider=").content.decode()
    assert re.search(
        r'class="state fresh">as asked</span> simulated gives it all of its 86,400 requests', page
    )
    page = local.get("/pages/jobs/new?symbols=IBM&interval=1&provider=alpha_vantage").content.decode()
    assert "set ALPHA_VANTAGE_API_KEY" in page
    assert not PollJob.objects.exists()


def test_first_symbol_is_polled_from_the_overview(local: Client) -> None:
    page = local.get("/").content.decode()
    form = re.search(r'<form method="post" action="(.+?)">(.*?)</form>', page, re.DOTALL)
    assert form
    values = dict(re.findall(r'name="(\w+)" value="(.*?)"', form[2]))
    address = local.post(form[1], values)["Location"]
    assert address == page_of(PollJob.objects.get(symbols=["SIM-ACME"], interval=1))
    assert "Poll a first symbol" not in local.get("/").content.decode()


def test_job_is_paused_resumed_changed_stopped_and_deleted(local: Client, make_job: MakeJob) -> None:
    job = make_job(["SIM-A"])
    page = page_of(job)
    for action, status in (("pause", "paused"), ("resume", "active")):
        assert send(local, page, action=action) == page
        assert PollJob.objects.get().status == status
    send(local, page, action="change", symbols="SIM-B", interval="9")
    changed = PollJob.objects.get()
    assert (changed.symbols, changed.interval) == (["SIM-B"], 9)
    send(local, page, action="stop")
    assert PollJob.objects.get().status == JobStatus.STOPPED
    assert "Delete it" in local.get(page).content.decode()
    assert send(local, page, action="delete") == "/pages/jobs"
    assert "Deleted" in local.get("/pages/jobs").content.decode()
    assert local.get(page).status_code == 404


def test_page_tells_gaps_in_words(client: Client, make_job: MakeJob) -> None:
    job = make_job(["SIM-A"])
    first = database_now() - 5 * MINUTE
    PollGap.objects.create(
        job=job, from_due=first, to_due=first + timedelta(seconds=2), slots=3, reason=str(GapReason.DOWN)
    )
    page = client.get(page_of(job)).content.decode()
    assert "3 slots, down: no scheduler ran" in page
    assert "Log in to change it" in page
    assert 'name="action"' not in page


def test_form_without_its_token_does_nothing(local: Client, make_job: MakeJob) -> None:
    job = make_job(["SIM-A"])
    assert local.post(page_of(job), {"action": "pause"}).status_code == 403
    assert PollJob.objects.get().status == JobStatus.ACTIVE


def test_who_may_not_change_is_sent_to_the_login_and_back(client: Client, make_job: MakeJob) -> None:
    job = make_job(["SIM-A"])
    answer = client.post(page_of(job), {"action": "stop"})
    assert answer["Location"] == f"/admin/login/?next={page_of(job)}"
    assert client.get("/pages/jobs/new")["Location"] == "/admin/login/?next=/pages/jobs/new"
    client.force_login(User.objects.create(username="viewer", is_staff=True))
    assert client.post(page_of(job), {"action": "stop"}).status_code == 403
    assert PollJob.objects.get().status == JobStatus.ACTIVE
    client.force_login(User.objects.create_superuser("admin"))
    assert client.post(page_of(job), {"action": "stop"}).status_code == 302
    assert PollJob.objects.get().status == JobStatus.STOPPED


def test_service_with_keys_shows_jobs_to_who_may_change_them(
    client: Client, make_job: MakeJob, settings: Settings
) -> None:
    settings.API_AUTH = "keys"
    make_job(["SIM-A"])
    assert client.get("/pages/jobs")["Location"] == "/admin/login/?next=/pages/jobs"
    client.force_login(User.objects.create(username="viewer", is_staff=True))
    assert client.get("/pages/jobs").status_code == 403
    client.force_login(User.objects.create_superuser("admin"))
    assert "SIM-A" in client.get("/pages/jobs").content.decode()
