"""PostgreSQL's clock was ahead, and is set right: what lies in the time to come is in nobody's way."""

from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from django.utils import timezone

from prices.clock import database_now
from prices.database.uuid7 import first_id_at
from prices.fetching.recent import received_since
from prices.jobs.services import create_job, stop_job
from prices.latest.stored import stored_prices
from prices.ledger.accounting import account_slots
from prices.ledger.beat_terms import RENEWED_WITHIN
from prices.ledger.runs import RunOutcome, claim_slots, finish
from prices.ledger.set_back import undo_time_to_come
from prices.models import BeatTerm, PollGap, PollJob, PollRun, PricePoint, RunState
from tests.conftest import MakeJob
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


def add_point(received_at: datetime, *, price: int, made_at: datetime | None = None) -> PricePoint:
    made = {"id": first_id_at(made_at)} if made_at else {}
    return PricePoint.objects.create(
        symbol="SIM-A",
        provider="simulated",
        price=Decimal(price),
        observed_at=received_at,
        precision="second",
        received_at=received_at,
        raw=first_id_at(received_at),
        **made,
    )


def received() -> dict[str, datetime]:
    return received_since("simulated", ["SIM-A"], since=timezone.now() - 5 * SECOND)


def newest() -> PricePoint | None:
    received_after = timezone.now() - 15 * SECOND
    return stored_prices(["SIM-A"], "simulated", received_after=received_after).get("SIM-A")


def test_price_received_in_an_hour_is_not_recent() -> None:
    add_point(timezone.now() + HOUR, price=1)
    assert received() == {}
    assert newest() is None


@pytest.mark.parametrize("made_ahead", [timedelta(0), HOUR])
def test_price_received_in_an_hour_hides_no_other(made_ahead: timedelta) -> None:
    now = timezone.now()
    for number in range(6):
        ahead = HOUR + number * SECOND
        add_point(now + ahead, price=1, made_at=now - SECOND + made_ahead + number * SECOND / 100)
    add_point(now, price=2)
    assert received() == {"SIM-A": now}
    point = newest()
    assert point is not None
    assert point.price == 2


def test_price_of_a_time_to_come_is_not_recent_when_its_time_comes() -> None:
    now = database_now()
    point = add_point(now + HOUR, price=1, made_at=now + HOUR)
    undo_time_to_come(now=now)
    point.refresh_from_db()
    assert (point.received_at, point.observed_at) == (now, now + HOUR)


def test_price_of_the_running_day_keeps_its_receipt_for_its_time() -> None:
    now = database_now()
    point = add_point(now + HOUR, price=1, made_at=now + HOUR)
    PricePoint.objects.update(precision="day")
    undo_time_to_come(now=now)
    point.refresh_from_db()
    assert point.received_at == point.observed_at == now


def test_job_accounted_for_up_to_a_time_to_come_is_polled_at_once(make_job: MakeJob) -> None:
    job = make_job(interval=600)
    BeatTerm.objects.create(
        holder="x", began_at=job.created_at, renewed_at=job.created_at, until=job.created_at
    )
    account_slots(now=database_now() + HOUR, all_jobs=True)
    # There are two where a slot was due just when the beat led.
    assert PollGap.objects.latest("to_due").to_due > timezone.now() + HOUR / 2
    (claim,) = claim_slots([job.id])
    assert claim.due_at <= database_now() < claim.due_at + 600 * SECOND
    assert not PollGap.objects.filter(to_due__gte=claim.due_at).exists()


def test_slot_polled_by_a_clock_that_was_ahead_is_polled_again_in_its_time() -> None:
    now = database_now()
    job = create_job(symbols=["SIM-A"], interval=10, provider="simulated", now=now)
    (claim,) = claim_slots([job.id], now=now + HOUR)
    finish([RunOutcome(claim, RunState.STORED, points=1)])
    PollRun.objects.update(started_at=claim.due_at, finished_at=claim.due_at)
    assert claim_slots([job.id], now=now + HOUR) == []
    undo_time_to_come(now=now)
    (again,) = claim_slots([job.id], now=now + HOUR)
    assert again.run_id == claim.run_id
    assert PollRun.objects.get().state == RunState.CLAIMED
    PollRun.objects.update(started_at=claim.due_at)
    assert claim_slots([job.id], now=now + HOUR) == []


def test_slot_claimed_while_the_clock_is_set_back_a_little_is_not_polled_again(make_job: MakeJob) -> None:
    job = make_job(interval=1)
    # What a worker read just before, when its statement waits for the job's row meanwhile.
    before = database_now() + 3 * SECOND
    (claim,) = claim_slots([job.id], now=before)
    undo_time_to_come()
    assert claim_slots([job.id], now=before) == []
    finish([RunOutcome(claim, RunState.STORED, points=1)])
    assert claim_slots([job.id], now=before) == []


@pytest.mark.parametrize("is_accounted_for", [False, True])
def test_stop_soon_after_the_clock_is_right_ends_the_job_now(
    make_job: MakeJob, *, is_accounted_for: bool
) -> None:
    job = make_job(interval=5)
    claim_slots([job.id], now=database_now() + HOUR)
    if is_accounted_for:
        account_slots(now=database_now() + HOUR, all_jobs=True)
    stop_job(job.id, waits=False)
    job.refresh_from_db()
    assert job.accounted_until <= database_now() + 5 * SECOND
    assert all(gap.to_due <= job.accounted_until for gap in PollGap.objects.all())


def test_slot_before_a_lead_that_a_step_back_made_end_first_is_missed() -> None:
    now = database_now()
    begin = now - 60 * SECOND
    create_job(symbols=["SIM-A"], interval=5, provider="simulated", now=begin)
    # The first one's last renewal is by the clock before it was set back by 3 s.
    for began, renewed in ((0, 23), (20, 21)):
        began_at, renewed_at = begin + began * SECOND, begin + renewed * SECOND
        BeatTerm.objects.create(holder="x", began_at=began_at, renewed_at=renewed_at, until=renewed_at)
    account_slots(now=now, all_jobs=True)
    first = PollGap.objects.order_by("from_due").first()
    assert first is not None
    assert begin <= first.from_due <= begin + 5 * SECOND


def test_open_run_of_a_time_to_come_is_overdue_a_while_from_now(make_job: MakeJob) -> None:
    now = database_now()
    claim_slots([make_job().id], now=now + HOUR)
    PollRun.objects.update(started_at=now + HOUR)
    undo_time_to_come(now=now)
    assert PollRun.objects.get().started_at == now


def test_job_created_by_a_clock_that_was_ahead_is_polled_from_now_on() -> None:
    now = database_now()
    job = create_job(symbols=["SIM-A"], interval=1, provider="simulated", now=now + HOUR)
    # With its next slot at the latest, where one has just passed.
    claims = wait_until(lambda: claim_slots([job.id]), timeout_s=10)
    assert [claim.job.id for claim in claims] == [job.id]
    job.refresh_from_db()
    assert now <= job.created_at <= database_now()


def test_slots_of_the_time_in_which_the_clock_was_ahead_say_so(make_job: MakeJob) -> None:
    now = database_now()
    job = make_job(interval=5)
    # It led until the job was created: a term lasts a little longer than its last renewal.
    led = job.created_at - RENEWED_WITHIN
    BeatTerm.objects.create(holder="x", began_at=led, renewed_at=led, until=led)
    account_slots(now=now + HOUR, all_jobs=True)
    # As beat notes it: it led for a minute by the clock that was ahead.
    BeatTerm.objects.create(
        holder="x", began_at=now - 60 * SECOND, renewed_at=now, until=now, clock_ahead_s=3600
    )
    account_slots(now=now + SECOND)
    account_slots(now=now + SECOND, all_jobs=True)
    by_reason = {gap.reason: gap for gap in PollGap.objects.all()}
    assert set(by_reason) == {
        "down: no scheduler ran",
        "clock: PostgreSQL's was ahead, and is set back since",
    }
    ahead = by_reason["clock: PostgreSQL's was ahead, and is set back since"]
    assert now - 60 * SECOND <= ahead.from_due <= now - 54 * SECOND
    assert ahead.to_due <= PollJob.objects.get().accounted_until < now
