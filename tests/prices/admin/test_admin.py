import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask
from pytest_django import Settings

from prices.database.uuid7 import new_ids
from prices.jobs.services import FETCH_STARTS_WITHIN_S, delete_job, stop_job
from prices.ledger.runs import claim_slots
from prices.models import (
    BeatTerm,
    DeadLetter,
    PollGap,
    PollJob,
    PollRun,
    PricePoint,
    RawMarketData,
    SymbolAverage,
)
from prices.quota import change_planned_job
from tests.conftest import MakeJob
from tests.prices.slots_of_a_job import add_gap, add_runs
from tests.redis_troubles import admin_of, full

NOW = datetime.now(UTC)
TABLES = ["rawmarketdata", "pricepoint", "symbolaverage", "polljob", "pollrun", "pollgap", "deadletter"]
pytestmark = pytest.mark.django_db


@pytest.fixture
def add_rows(make_job: MakeJob) -> Callable[[str], UUID]:
    """Return a function that adds one row for a symbol to every table, and gives the raw answer's id."""

    def add(symbol: str) -> UUID:
        job = make_job([symbol])
        claim_slots([job.id], now=timezone.now())
        PollGap.objects.create(job=job, from_due=NOW, to_due=NOW, slots=1, reason="down")
        raw_id, point_id = new_ids(2)
        RawMarketData.objects.create(
            id=raw_id,
            provider="simulated",
            symbols=[symbol],
            url="http://127.0.0.1/quote",
            status=200,
            outcome="quote",
            payload={"price": 1},
            received_at=NOW,
            latency_ms=1.0,
        )
        PricePoint.objects.create(
            id=point_id,
            symbol=symbol,
            provider="simulated",
            price=Decimal("0.0000001"),
            precision="unknown",
            received_at=NOW,
            raw=raw_id,
        )
        SymbolAverage.objects.create(
            event_id=point_id, symbol=symbol, price=1, window_size=1, provider="simulated"
        )
        DeadLetter.objects.create(
            topic="price-events",
            partition=0,
            offset=point_id.int % 10**6,
            message_timestamp=NOW,
            group="averages",
            value=b"\xff{",
            headers=[[b"v", b"\xfe"], [b"v", None]],
            reason="the value cannot be read",
        )
        return raw_id

    return add


@pytest.mark.parametrize("table", TABLES)
def test_list_costs_no_query_a_row(admin_client: Client, add_rows: Callable[[str], UUID], table: str) -> None:
    add_rows("SIM-A")
    with CaptureQueriesContext(
        connection,
    ) as with_one:
        assert admin_client.get(f"/admin/prices/{table}/").status_code == 200
    for number in range(5):
        add_rows(f"SIM-{number}")
    with CaptureQueriesContext(connection) as with_six:
        assert admin_client.get(f"/admin/prices/{table}/").status_code == 200
    assert len(with_six) == len(with_one)


@pytest.mark.parametrize("table", ["rawmarketdata", "pricepoint", "symbolaverage", "polljob"])
def test_search_finds_a_symbol_in_any_case(
    admin_client: Client, add_rows: Callable[[str], UUID], table: str
) -> None:
    add_rows("SIM-A")
    add_rows("SIM-B")
    page = admin_client.get(f"/admin/prices/{table}/?q=sim-a").content.decode()
    assert "SIM-A" in page
    assert "SIM-B" not in page


def test_search_finds_an_id(admin_client: Client, add_rows: Callable[[str], UUID]) -> None:
    raw_id = add_rows("SIM-A")
    add_rows("SIM-B")
    page = admin_client.get(f"/admin/prices/rawmarketdata/?q={raw_id}").content.decode()
    assert "SIM-A" in page
    assert "SIM-B" not in page


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("term", ["no such thing", "%E2%98%83", "'"])
def test_search_for_nonsense_finds_nothing(
    admin_client: Client, add_rows: Callable[[str], UUID], table: str, term: str
) -> None:
    add_rows("SIM-A")
    assert (
        "SIM-A"
        not in admin_client.get(f"/admin/prices/{table}/?q={term}").content.decode().split("result_list")[-1]
    )


@pytest.mark.parametrize(
    ("table", "query"),
    [
        ("rawmarketdata", "provider=simulated&outcome__exact=quote"),
        ("pricepoint", "provider=simulated&precision__exact=unknown&published_at__isempty=1"),
        ("symbolaverage", "provider=simulated&window_size=1"),
        ("polljob", "status__exact=active&provider=simulated"),
        ("pollrun", "state__exact=claimed&due=1"),
        ("pollrun", "due=24"),
        ("pollgap", "reason=down"),
        ("deadletter", "replayed_at__isempty=1"),
    ],
)
def test_list_can_be_filtered(
    admin_client: Client, add_rows: Callable[[str], UUID], table: str, query: str
) -> None:
    add_rows("SIM-A")
    page = admin_client.get(f"/admin/prices/{table}/?{query}").content.decode()
    assert "1 " in page.split('class="paginator"')[1]


@pytest.mark.parametrize("model", [RawMarketData, PricePoint, SymbolAverage, PollRun, PollGap, DeadLetter])
def test_row_can_be_looked_at_and_not_changed(
    admin_client: Client, add_rows: Callable[[str], UUID], model: type[PollGap]
) -> None:
    add_rows("SIM-A")
    row = model.objects.get()
    address = f"/admin/prices/{model._meta.model_name}/{row.pk}/"
    page = admin_client.get(address + "change/").content.decode()
    assert 'name="_save"' not in page
    assert admin_client.post(address + "change/", {"symbol": "X"}).status_code == 403
    assert admin_client.post(address + "delete/", {"post": "yes"}).status_code == 403
    assert admin_client.get(f"/admin/prices/{model._meta.model_name}/add/").status_code == 403


def test_price_is_shown_with_its_digits(admin_client: Client, add_rows: Callable[[str], UUID]) -> None:
    add_rows("SIM-A")
    assert "0.0000001" in admin_client.get("/admin/prices/pricepoint/").content.decode()


def test_dead_letter_of_any_bytes_is_readable(admin_client: Client, add_rows: Callable[[str], UUID]) -> None:
    add_rows("SIM-A")
    letter = DeadLetter.objects.get()
    page = admin_client.get(f"/admin/prices/deadletter/{letter.pk}/change/").content.decode()
    assert r"\xff{" in page
    assert "v: \\xfe\nv: \n" in page.replace("</pre>", "\n")


def act(client: Client, action: str, *jobs: PollJob) -> str:
    data = {"action": action, "_selected_action": [str(job.pk) for job in jobs]}
    return client.post("/admin/prices/polljob/", data, follow=True).content.decode()


def test_jobs_are_paused_resumed_and_stopped_by_actions(admin_client: Client, make_job: MakeJob) -> None:
    first, second = make_job(), make_job()
    for action, status in (("pause", "paused"), ("resume", "active"), ("stop", "stopped")):
        page = act(admin_client, action, first, second)
        assert f"2 jobs {action}" in page or "2 jobs stopped" in page
        for job in (first, second):
            job.refresh_from_db()
            assert job.status == status


def test_job_page_tells_what_the_budget_gives_it(
    admin_client: Client, make_job: MakeJob, settings: Settings
) -> None:
    settings.ALPHA_VANTAGE_API_KEY = "canary-key-123456"
    job = make_job(["AAPL", "MSFT"], interval=60, provider="alpha_vantage")
    page = admin_client.get(f"/admin/prices/polljob/{job.id}/change/").content.decode()
    assert "20 of 2,880 requests a day: each symbol every 45 min while its markets are open" in page
    stop_job(job.id)
    page = admin_client.get(f"/admin/prices/polljob/{job.id}/change/").content.decode()
    assert "requests a day" not in page


def test_list_of_jobs_tells_what_keeps_each_from_polling(
    admin_client: Client, make_job: MakeJob, settings: Settings
) -> None:
    settings.ALPHA_VANTAGE_API_KEY = "canary-key-123456"
    settings.FINNHUB_API_KEY = ""
    make_job(["AAPL"], provider="finnhub")
    make_job(["AAPL", "MSFT"], interval=60, provider="alpha_vantage")
    page = admin_client.get("/admin/prices/polljob/").content.decode()
    assert "not configured: set FINNHUB_API_KEY" in page
    assert "budget: 20 of 2,880 requests a day: each symbol every 45 min" in page


def shown_rows(page: str) -> int:
    return page.split("<tbody>")[1].split("</tbody>")[0].count("<tr")


def test_job_page_leads_to_its_runs_and_gaps(admin_client: Client, make_job: MakeJob) -> None:
    job, other = make_job(["SIM-A"]), make_job(["SIM-B"])
    for each, states in ((job, "sf"), (other, "sss")):
        add_runs(each, states)
        add_gap(each, 5, 6, f"down: {each.symbols[0]}")
    page = admin_client.get(f"/admin/prices/polljob/{job.id}/change/").content.decode()
    links = re.findall(r'href="(/admin/prices/poll(?:run|gap)/\?[^"]+)"', page)
    runs, gaps = (admin_client.get(link).content.decode() for link in links)
    assert shown_rows(runs) == 2
    assert shown_rows(gaps) == 1
    assert "SIM-B" not in runs


def test_runs_are_filtered_by_when_they_were_due(admin_client: Client, make_job: MakeJob) -> None:
    job = make_job()
    for hours in (0.5, 5, 50):
        add_runs(job, "s", start=timezone.now().replace(microsecond=0) - timedelta(hours=hours))
    for chosen, expected in (("due=1", 1), ("due=24", 2), ("", 3)):
        page = admin_client.get(f"/admin/prices/pollrun/?{chosen}").content.decode()
        assert shown_rows(page) == expected


def test_times_in_lists_have_seconds(admin_client: Client, add_rows: Callable[[str], UUID]) -> None:
    add_rows("SIM-A")
    for table in ("rawmarketdata", "pricepoint"):
        page = admin_client.get(f"/admin/prices/{table}/").content.decode()
        assert f"{NOW:%Y-%m-%d %H:%M:%S}" in page


def test_long_text_of_a_list_is_shortened_and_whole_on_its_page(
    admin_client: Client, make_job: MakeJob
) -> None:
    job = make_job()
    job.last_error = f"it {'failed ' * 50}at last"
    job.save()
    page = admin_client.get("/admin/prices/polljob/").content.decode()
    assert f'title="{job.last_error}">it failed failed' in page
    assert f">{job.last_error}<" not in page
    assert job.last_error in admin_client.get(f"/admin/prices/polljob/{job.id}/change/").content.decode()


def test_stop_of_many_jobs_waits_once_for_all_their_polls(admin_client: Client, make_job: MakeJob) -> None:
    jobs = [make_job([f"SIM-{number}"]) for number in range(5)]
    claim_slots([job.id for job in jobs], now=timezone.now())
    began = time.monotonic()
    assert "5 jobs stopped" in act(admin_client, "stop", *jobs)
    assert FETCH_STARTS_WITHIN_S <= time.monotonic() - began < 4 * FETCH_STARTS_WITHIN_S


def test_job_stopped_cannot_be_resumed_and_says_so(admin_client: Client, make_job: MakeJob) -> None:
    job = make_job()
    stop_job(job.id)
    assert "was stopped for good" in act(admin_client, "resume", job)


def test_actions_need_the_permission_to_change_jobs(client: Client, make_job: MakeJob) -> None:
    viewer = User.objects.create_user("viewer", password="x", is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_polljob"))
    client.force_login(viewer)
    job = make_job()
    page = act(client, "stop", job)
    job.refresh_from_db()
    assert job.status == "active"
    assert "Stop selected jobs" not in page


def test_interval_of_a_job_is_changed_on_its_page_and_nothing_else(
    admin_client: Client, make_job: MakeJob
) -> None:
    job = make_job(["SIM-A"], interval=60)
    BeatTerm.objects.create(
        holder="test", began_at=job.created_at, renewed_at=job.created_at, until=job.created_at
    )
    address = f"/admin/prices/polljob/{job.pk}/change/"
    assert 'name="interval"' in admin_client.get(address).content.decode()
    answer = admin_client.post(
        address, {"interval": "5", "symbols": "SIM-B", "status": "stopped"}, follow=True
    )
    assert "was changed successfully" in answer.content.decode()
    job.refresh_from_db()
    assert (job.interval, job.symbols, job.status) == (5, ["SIM-A"], "active")
    assert job.periodic_task.interval.every == 5
    assert PollGap.objects.filter(job=job, reason="interval changed").count() == 1


def test_market_hours_of_a_job_are_changed_on_its_page(admin_client: Client, make_job: MakeJob) -> None:
    job = make_job(["AAPL"], interval=60, provider="yfinance")
    address = f"/admin/prices/polljob/{job.pk}/change/"
    for form, expected in (({"market_hours": "on"}, True), ({}, False)):
        admin_client.post(address, {"interval": "60"} | form)
        job.refresh_from_db()
        assert (job.interval, job.market_hours) == (60, expected)


@pytest.mark.parametrize(("chosen", "shown"), [("1", True), ("0", False)])
def test_jobs_are_filtered_by_market_hours(
    admin_client: Client, make_job: MakeJob, chosen: str, shown: bool
) -> None:
    make_job(["AAPL"], provider="yfinance", market_hours=True)
    page = admin_client.get(f"/admin/prices/polljob/?market_hours__exact={chosen}").content.decode()
    assert ("AAPL every 1\u00a0s in market hours" in page) is shown


@pytest.mark.parametrize("interval", ["0", "86401", "x", ""])
def test_interval_out_of_range_is_refused_on_the_page(
    admin_client: Client, make_job: MakeJob, interval: str
) -> None:
    job = make_job(interval=60)
    answer = admin_client.post(f"/admin/prices/polljob/{job.pk}/change/", {"interval": interval})
    assert 'class="errorlist"' in answer.content.decode()
    job.refresh_from_db()
    assert job.interval == 60


def test_job_can_be_neither_added_nor_deleted_by_hand(admin_client: Client, make_job: MakeJob) -> None:
    assert admin_client.get("/admin/prices/polljob/add/").status_code == 403
    address = f"/admin/prices/polljob/{make_job().pk}/delete/"
    assert admin_client.post(address, {"post": "yes"}).status_code == 403


def test_stopped_job_has_nothing_to_change(admin_client: Client, make_job: MakeJob) -> None:
    job = make_job(interval=60)
    stop_job(job.id)
    address = f"/admin/prices/polljob/{job.pk}/change/"
    assert 'name="_save"' not in admin_client.get(address).content.decode()
    assert admin_client.post(address, {"interval": "5"}).status_code == 403


def test_job_stopped_while_its_page_is_saved_says_so(
    admin_client: Client, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(interval=60)

    def stop_first(job_id: UUID, **options: Any) -> PollJob:
        stop_job(job_id)
        return change_planned_job(job_id, **options)

    monkeypatch.setattr("prices.admin.jobs.change_planned_job", stop_first)
    answer = admin_client.post(f"/admin/prices/polljob/{job.pk}/change/", {"interval": "5"}, follow=True)
    assert "The job was stopped for good." in answer.content.decode()


@pytest.mark.django_db(transaction=True)
def test_interval_that_a_strict_budget_does_not_carry_is_refused(
    admin_client: Client, make_job: MakeJob, settings: Settings
) -> None:
    settings.ALPHA_VANTAGE_API_KEY = "key"
    settings.QUOTA_STRICT = True
    job = make_job(["AAPL"], interval=8640, provider="alpha_vantage")
    answer = admin_client.post(f"/admin/prices/polljob/{job.id}/change/", {"interval": 60}, follow=True)
    assert "Not changed, since QUOTA_STRICT is set: it would get 20 of 1,440 requests" in (
        answer.content.decode()
    )
    job.refresh_from_db()
    assert job.interval == 8640


def test_admin_without_slash_leads_to_it(client: Client) -> None:
    answer = client.get("/admin")
    assert (answer.status_code, answer["Location"]) == (302, "/admin/")


def test_id_stands_once_on_a_page(admin_client: Client, make_job: MakeJob) -> None:
    page = admin_client.get(f"/admin/prices/polljob/{make_job().pk}/change/").content.decode()
    assert page.count("field-id") == 1


def task_page(task: PeriodicTask) -> str:
    return f"/admin/django_celery_beat/periodictask/{task.pk}/change/"


def test_of_a_poll_jobs_task_only_the_switch_can_be_changed(admin_client: Client, make_job: MakeJob) -> None:
    job = make_job(interval=60)
    other = IntervalSchedule.objects.create(every=5, period=IntervalSchedule.SECONDS)
    page = admin_client.get(task_page(job.periodic_task)).content.decode()
    assert reverse("admin:prices_polljob_change", args=[job.id]) in page
    assert 'name="interval"' not in page
    sent = {"name": "x", "task": "x", "interval": other.pk, "one_off": "on", "queue": "x"}
    before = PeriodicTask.objects.filter(poll_job=job).values("name", "task", "interval", "one_off", "queue")
    kept = list(before)
    assert admin_client.post(task_page(job.periodic_task), sent).status_code == 302
    assert list(before.all()) == kept
    assert not PeriodicTask.objects.get(poll_job=job).enabled
    admin_client.post(task_page(job.periodic_task), {"enabled": "on"})
    assert PeriodicTask.objects.get(poll_job=job).enabled


def test_other_periodic_tasks_are_changed_as_ever(admin_client: Client) -> None:
    each_hour = IntervalSchedule.objects.create(every=1, period=IntervalSchedule.HOURS)
    task = PeriodicTask.objects.create(name="own", task="their.task", interval=each_hour)
    each_day = IntervalSchedule.objects.create(every=1, period=IntervalSchedule.DAYS)
    page = admin_client.get(task_page(task)).content.decode()
    assert 'name="interval"' in page
    sent = {"name": "own", "task": "their.task", "interval": each_day.pk, "args": "[]", "kwargs": "{}"}
    answer = admin_client.post(task_page(task), sent | {"headers": "{}", "enabled": "on"})
    assert answer.status_code == 302
    task.refresh_from_db()
    assert task.interval == each_day
    assert admin_client.get("/admin/django_celery_beat/periodictask/add/").status_code == 200


def test_task_that_redis_does_not_take_is_told(admin_client: Client, make_job: MakeJob) -> None:
    task = make_job().periodic_task
    data = {"action": "run_tasks", "_selected_action": [str(task.pk)]}
    with admin_of(django_settings.REDIS_URL) as admin, full(admin):
        answer = admin_client.post(
            reverse("admin:django_celery_beat_periodictask_changelist"), data, follow=True
        )
    assert "Not all were sent: Redis answers: OOM command not allowed" in answer.content.decode()


@pytest.mark.parametrize(
    ("table", "query"),
    [
        ("deadletter", "created_at__year=99999"),
        ("deadletter", "value=x"),
        ("pollrun", "reason__regex=("),
        ("pricepoint", "symbol__regex=("),
        ("polljob", "created_at__year=0"),
    ],
)
def test_filter_that_no_page_offers_is_refused(
    admin_client: Client, add_rows: Callable[[str], UUID], table: str, query: str
) -> None:
    add_rows("SIM-A")
    assert admin_client.get(f"/admin/prices/{table}/?{query}").status_code == 400


def test_action_on_an_id_that_is_none_changes_nothing(admin_client: Client, make_job: MakeJob) -> None:
    job = make_job(["SIM-A"])
    selected = {"action": "stop", "_selected_action": [str(job.id), "x"]}
    page = admin_client.post("/admin/prices/polljob/", selected, follow=True).content.decode()
    assert "Nothing was done" in page
    job.refresh_from_db()
    assert job.status == "active"


def test_deleted_job_is_in_no_list_but_that_of_deleted_ones(admin_client: Client, make_job: MakeJob) -> None:
    kept, deleted = make_job(["SIM-KEPT"]), make_job(["SIM-GONE"])
    stop_job(deleted.id)
    delete_job(deleted.id)
    address = "/admin/prices/polljob/"
    for query, shown, left_out in (("", kept, deleted), ("?deleted=yes", deleted, kept)):
        page = admin_client.get(address + query).content.decode()
        assert f"/{shown.id}/change/" in page
        assert f"/{left_out.id}/change/" not in page
    # Polls lead to it still, and nothing can be done with it.
    assert admin_client.get(f"{address}{deleted.id}/change/").status_code == 200
    chosen = {"action": "resume", "_selected_action": [str(deleted.id)]}
    page = admin_client.post(f"{address}?deleted=yes", chosen, follow=True).content.decode()
    assert "was stopped for good" in page
