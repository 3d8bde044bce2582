from datetime import timedelta

import pytest
from django.utils import timezone

from prices.claims import claim_slots
from prices.ids import first_id_at
from prices.models import PollRun, RawMarketData
from prices.sent_times import load_sent_times
from tests.conftest import MakeJob

pytestmark = pytest.mark.django_db


def test_poll_that_has_not_ended_may_have_a_request_under_way(make_job: MakeJob) -> None:
    job = make_job(["AAPL"], interval=60, provider="finnhub")
    claim_slots([job.id], now=timezone.now())
    # The poll that asks has itself just begun.
    assert load_sent_times("finnhub", 60).job == []
    PollRun.objects.update(started_at=timezone.now() - timedelta(seconds=3))
    assert len(list(load_sent_times("finnhub", 60).job)) == 1
    assert load_sent_times("alpha_vantage", 60).job == []


def test_poll_that_was_cut_off_long_ago_has_none(make_job: MakeJob) -> None:
    job = make_job(["AAPL"], interval=60, provider="finnhub")
    claim_slots([job.id], now=timezone.now())
    PollRun.objects.update(started_at=timezone.now() - timedelta(minutes=10))
    assert load_sent_times("finnhub", 60).job == []


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
