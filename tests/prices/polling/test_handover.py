"""Slots that go on at another provider wait in its queue no longer than their claims last."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
import redis
from django.conf import settings as django_settings
from django.utils import timezone

from prices.ledger.runs import claim_slots
from prices.maintenance.expired_messages import drop_expired_messages
from prices.models import PollRun
from prices.polling.handover import hand_over, take_over, to_message
from prices.polling.merge import PendingRun
from prices.polling.poll import Polled
from tests.conftest import MakeJob
from tests.redis_troubles import admin_of, full

pytestmark = pytest.mark.django_db(transaction=True)
QUEUE = "poll.yfinance"


@pytest.fixture
def broker() -> Iterator[redis.Redis]:
    with admin_of(django_settings.REDIS_URL) as client:
        client.delete(QUEUE)
        yield client
        client.delete(QUEUE)


def claimed_slot(make_job: MakeJob) -> PendingRun:
    job = make_job(["AAPL"], interval=60, provider=None)
    (claim,) = claim_slots([job.id], now=timezone.now())
    return PendingRun(claim, dict.fromkeys(job.symbols), tried=["finnhub"])


def test_messages_that_nobody_takes_go_when_their_claims_are_over(
    make_job: MakeJob, broker: redis.Redis
) -> None:
    slot = claimed_slot(make_job)
    for _ in range(5):
        hand_over(Polled(go_on={"yfinance": [slot]}))
    over = timezone.now() + timedelta(seconds=django_settings.POLL_DEADLINE_S)
    assert drop_expired_messages(now=over + timedelta(seconds=30)) == 0
    assert broker.llen(QUEUE) == 5
    assert drop_expired_messages(now=over + timedelta(seconds=90)) == 5
    assert broker.llen(QUEUE) == 0


def test_slot_that_is_taken_too_late_ends_with_what_it_has(make_job: MakeJob) -> None:
    slot = claimed_slot(make_job)
    slot.deferred = {"AAPL": "finnhub: the provider answered HTTP 503"}
    slot.waiting = {}
    slot.asked = True
    deadline = timedelta(seconds=django_settings.POLL_DEADLINE_S)
    PollRun.objects.update(started_at=timezone.now() - deadline)
    assert take_over("yfinance", [to_message(slot)]) == Polled()
    run = PollRun.objects.get()
    assert (run.state, run.reason) == (
        "failed",
        "AAPL: finnhub: the provider answered HTTP 503; not asked: no worker of yfinance took it in time",
    )


def test_slot_that_redis_does_not_take_ends_with_its_words(make_job: MakeJob, broker: redis.Redis) -> None:
    slot = claimed_slot(make_job)
    with full(broker):
        hand_over(Polled(go_on={"yfinance": [slot]}))
    run = PollRun.objects.get()
    assert run.state == "skipped"
    assert run.reason == "not asked: Redis answers: OOM command not allowed when used memory > 'maxmemory'"
