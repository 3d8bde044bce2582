from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import Settings
from pytest_httpserver import HTTPServer

from prices.database.uuid7 import first_id_at, new_ids
from prices.fetching.budget_history import load_sent_times
from prices.ledger.runs import claim_slots
from prices.models import PollJob, PollRun, RawMarketData
from prices.polling.merge import PendingRun
from prices.polling.poll import Polled, poll_runs
from providers.rate_limits.permits import Granted, Refusal, Refused, request_permit
from tests.conftest import MakeJob
from tests.providers.shared_scope import use_own_scope
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db


def open_run(make_job: MakeJob, *, began_s_ago: float, provider: str | None = "finnhub") -> PollRun:
    job = make_job(["AAPL"], interval=60, provider=provider)
    claim_slots([job.id], now=timezone.now())
    run = PollRun.objects.get(job=job)
    run.started_at = timezone.now() - timedelta(seconds=began_s_ago)
    run.save(update_fields=["started_at"])
    return run


def add_answer(**fields: Any) -> RawMarketData:
    columns = {"provider": "finnhub", "symbols": ["AAPL"], "outcome": "quote", "latency_ms": 1}
    return RawMarketData.objects.create(**columns | {"received_at": timezone.now()} | fields)


def test_open_poll_counts_as_a_request_at_its_start(make_job: MakeJob) -> None:
    run = open_run(make_job, began_s_ago=3)
    assert load_sent_times("finnhub", 60).job == [run.started_at]
    assert load_sent_times("alpha_vantage", 60).job == []


def test_poll_that_has_just_begun_does_not_count_itself(make_job: MakeJob) -> None:
    open_run(make_job, began_s_ago=0)
    assert load_sent_times("finnhub", 60).job == []


def test_open_poll_of_a_job_without_provider_counts_for_the_one_that_is_asked(
    make_job: MakeJob, settings: Settings
) -> None:
    settings.FINNHUB_API_KEY = "any"
    run = open_run(make_job, began_s_ago=3, provider=None)
    assert load_sent_times("finnhub", 60).job == [run.started_at]
    PollJob.objects.update(served_by="yfinance")
    assert load_sent_times("finnhub", 60).job == []
    assert load_sent_times("yfinance", 60).job == [run.started_at]


@pytest.mark.django_db(transaction=True)
def test_poll_that_was_slow_to_ask_does_not_count_itself(
    make_job: MakeJob, settings: Settings, httpserver: HTTPServer, topic: str
) -> None:
    use_own_scope(settings, "60/1m", timeout_s=10)
    settings.FINNHUB_BASE_URL = httpserver.url_for("").rstrip("/")
    answer = '{"c":1,"d":1,"dp":1,"h":0,"l":0,"o":0,"pc":0,"t":1795000000}'
    httpserver.expect_request("/api/v1/quote").respond_with_data(answer)
    job = make_job(["AAPL"], interval=60, provider="finnhub")
    (claim,) = claim_slots([job.id])
    PollRun.objects.update(started_at=timezone.now() - timedelta(seconds=3))
    polled = Polled()
    poll_runs("finnhub", [PendingRun(claim, {"AAPL": None})], polled)
    assert (polled.states, PollRun.objects.get().reason) == ({job.id: "stored"}, "")


def test_open_poll_with_an_answer_counts_by_its_answer(make_job: MakeJob) -> None:
    run = open_run(make_job, began_s_ago=3)
    answer = add_answer(poll=run.id)
    assert load_sent_times("finnhub", 60).job == [answer.received_at]


@pytest.mark.parametrize(("began_s_ago", "seconds"), [(600, 3600), (20, 5)])
def test_poll_that_began_too_long_ago_counts_for_nothing(
    make_job: MakeJob, began_s_ago: float, seconds: float
) -> None:
    open_run(make_job, began_s_ago=began_s_ago)
    assert load_sent_times("finnhub", seconds).job == []


def test_dead_workers_poll_holds_its_provider_for_one_time_out_only(
    make_job: MakeJob, settings: Settings
) -> None:
    use_own_scope(settings, "60/1m", timeout_s=2)
    run = open_run(make_job, began_s_ago=2)
    permit = request_permit("finnhub", caller="job", load_history=load_sent_times)
    assert isinstance(permit, Refused)
    assert permit.refusal == Refusal.SETTLING
    assert permit.retry_after_s is not None
    assert permit.retry_after_s <= 1.0
    wait_until(
        lambda: isinstance(request_permit("finnhub", caller="job", load_history=load_sent_times), Granted),
        timeout_s=3,
        what="a permit",
    )
    run.refresh_from_db()
    assert run.state == "claimed"


def test_fallback_is_counted_as_what_paid_for_it() -> None:
    by_job, fallback, by_caller = new_ids(3)
    own = add_answer(poll=by_job)
    others = [add_answer(poll=fallback, is_fallback=True), add_answer(id=by_caller)]
    found = load_sent_times("finnhub", 60)
    assert list(found.job) == [own.received_at]
    assert sorted(found.latest) == sorted(other.received_at for other in others)


def test_answer_stored_while_the_clock_of_the_database_is_behind_counts() -> None:
    now = timezone.now()
    RawMarketData.objects.create(
        id=first_id_at(now - timedelta(seconds=30)),
        provider="finnhub",
        symbols=["AAPL"],
        outcome="quote",
        received_at=now,
        latency_ms=1,
    )
    assert load_sent_times("finnhub", 5).latest == [now]


def test_answer_from_before_the_time_asked_for_is_left_out() -> None:
    RawMarketData.objects.create(
        provider="finnhub",
        symbols=["AAPL"],
        outcome="quote",
        received_at=timezone.now() - timedelta(seconds=30),
        latency_ms=1,
    )
    assert load_sent_times("finnhub", 5).latest == []
