"""What the account of a job with `market_hours` says of its slots."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from prices.jobs.services import change_job, create_job, pause_job, resume_job, stop_job
from prices.ledger.accounting import account_slots
from prices.ledger.grid import next_slot, phase_of
from prices.ledger.reports import count_slots, missed_slots
from prices.ledger.runs import RunOutcome, claim_slots, finish
from prices.models import BeatTerm, PollGap, PollJob, PollRun, RunState
from tests.logged import events_logged

pytestmark = pytest.mark.django_db
NEW_YORK = ZoneInfo("America/New_York")
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
MONDAY = datetime(2026, 11, 16, tzinfo=NEW_YORK)
NOT_POLLED = "no worker polled it in time"
CLOSED = "market_closed: outside the hours of the job's markets"
# Of a job of an hour on Apple: each hour so much later.
PHASE = phase_of("finnhub", 3600, ["AAPL"])


def slot(day: int, hour: int) -> datetime:
    """Return the slot of a day from that Monday on that is due within an hour of New York."""
    return next_slot(MONDAY + day * DAY + hour * HOUR, 3600, PHASE)


@pytest.fixture
def job() -> PollJob:
    """Return a job of an hour that was created at noon of a Monday and has its first price."""
    created = create_job(
        symbols=["AAPL"], interval=3600, provider="finnhub", market_hours=True, now=slot(0, 12)
    )
    BeatTerm.objects.create(
        holder="test", began_at=MONDAY, renewed_at=MONDAY + 30 * DAY, until=MONDAY + 30 * DAY
    )
    poll(created, slot(0, 12))
    return created


def poll(job: PollJob, moment: datetime) -> None:
    (claim,) = claim_slots([job.id], now=moment)
    finish([RunOutcome(claim, RunState.STORED, points=1)])


def gaps() -> list[tuple[datetime, datetime, int, str]]:
    rows = PollGap.objects.order_by("from_due")
    return list(rows.values_list("from_due", "to_due", "slots", "reason"))


def account(day: int, hour: int) -> None:
    """Account for the slots before this one."""
    account_slots(now=slot(day, hour) + timedelta(seconds=6), all_jobs=True)


def test_night_is_one_gap_that_says_so(job: PollJob) -> None:
    for hour in range(13, 18):
        poll(job, slot(0, hour))
    assert claim_slots([job.id], now=slot(0, 18)) == []
    account(1, 9)
    # The one of 17 o'clock was the last of Monday, the next one comes after 09:30.
    first = slot(1, 9) if slot(1, 9).minute >= 30 else slot(1, 10)
    account(1, 11)
    assert gaps()[0] == (slot(0, 18), first - HOUR, (first - slot(0, 18)) // HOUR, CLOSED)


def test_slot_in_the_hours_is_missed_as_ever(job: PollJob) -> None:
    account(1, 18)
    by_reason = Counter({reason: slots for _, _, slots, reason in gaps() if reason == CLOSED})
    assert [reason for _, _, _, reason in gaps()] == [NOT_POLLED, CLOSED, NOT_POLLED]
    counts = count_slots(job, since=MONDAY, until=slot(1, 18))
    assert (counts.stored, counts.market_closed) == (1, by_reason[CLOSED])
    assert counts.slots == counts.stored + counts.in_gaps
    assert counts.slots + counts.market_closed == (slot(1, 18) - slot(0, 12)) // HOUR


def test_nights_count_neither_as_slots_nor_as_missed(job: PollJob, caplog: pytest.LogCaptureFixture) -> None:
    for hour in range(13, 18):
        poll(job, slot(0, hour))
    account(1, 9)
    assert events_logged(caplog)["slots.missed"] == 0
    counts = count_slots(job, since=MONDAY, until=slot(1, 8))
    assert (counts.slots, counts.success_rate) == (6, 1.0)
    (night,) = missed_slots(job, since=MONDAY, until=slot(1, 8), limit=10)
    assert (night.kind, night.reason, night.from_due) == ("market_closed", CLOSED, slot(0, 18))


def test_weekend_holiday_and_short_day_are_left_out(job: PollJob) -> None:
    # The week of Thanksgiving, from the Sunday before to the Sunday after it.
    for day in range(7, 14):
        for hour in range(24):
            for claim in claim_slots([job.id], now=slot(day, hour)):
                finish([RunOutcome(claim, RunState.STORED, points=1)])
    polled = Counter(
        due_at.astimezone(NEW_YORK).day
        for due_at in PollRun.objects.filter(due_at__gt=slot(7, 0)).values_list("due_at", flat=True)
    )
    assert set(polled) == {23, 24, 25, 27}
    assert polled[27] == polled[23] - 3


def test_night_in_which_no_beat_ran_is_no_outage(job: PollJob) -> None:
    BeatTerm.objects.update(renewed_at=slot(0, 12) + HOUR / 2)
    account(1, 11)
    assert [reason for _, _, _, reason in gaps()][:2] == ["down: no scheduler ran", CLOSED]


def test_slots_before_the_first_price_are_missed_at_any_hour() -> None:
    BeatTerm.objects.create(holder="test", began_at=MONDAY, renewed_at=slot(8, 0), until=slot(8, 0))
    job = create_job(symbols=["AAPL"], interval=3600, provider="finnhub", market_hours=True, now=slot(5, 12))
    account(5, 15)
    assert gaps() == [(slot(5, 12), slot(5, 14), 3, NOT_POLLED)]
    poll(job, slot(5, 15))
    account(6, 12)
    assert gaps()[1:] == [(slot(5, 16), slot(6, 11), 20, CLOSED)]


def test_poll_without_a_price_leaves_the_job_polled_at_any_hour() -> None:
    job = create_job(symbols=["AAPL"], interval=3600, provider="finnhub", market_hours=True, now=slot(5, 12))
    (claim,) = claim_slots([job.id], now=slot(5, 12))
    finish([RunOutcome(claim, RunState.FAILED)])
    poll(job, slot(5, 13))
    assert claim_slots([job.id], now=slot(5, 14)) == []
    job.refresh_from_db()
    assert job.market_hours_from == slot(5, 13)


def test_price_of_former_symbols_is_no_first_price_of_new_ones(job: PollJob) -> None:
    (claim,) = claim_slots([job.id], now=slot(0, 13))
    change_job(job.id, symbols=["AAPL", "MSFT"], now=slot(0, 13) + HOUR / 4)
    finish([RunOutcome(claim, RunState.STORED, points=1)])
    # The next slot that is asked for lies on Saturday: at any hour.
    (claim,) = claim_slots([job.id], now=slot(5, 12))
    assert claim.job.symbols == ["AAPL", "MSFT"]


def test_symbols_that_were_polled_before_need_no_first_price(job: PollJob) -> None:
    change_job(job.id, symbols=["MSFT", "AAPL"], now=slot(0, 18))
    (claim,) = claim_slots([job.id], now=slot(0, 22))
    finish([RunOutcome(claim, RunState.STORED, points=1)])
    change_job(job.id, symbols=["MSFT"], now=slot(1, 1))
    assert claim_slots([job.id], now=slot(1, 3)) == []


def test_job_resumed_at_night_is_polled_at_once(job: PollJob) -> None:
    pause_job(job.id, now=slot(0, 14))
    account(0, 20)
    resume_job(job.id, now=slot(0, 22))
    poll(job, slot(0, 22))
    assert claim_slots([job.id], now=slot(0, 23)) == []
    assert [reason for _, _, _, reason in gaps()] == [NOT_POLLED, "paused"]


@pytest.mark.parametrize("hour", [14, 22])
def test_market_hours_end_with_the_next_slot(job: PollJob, hour: int) -> None:
    change_job(job.id, market_hours=False, now=slot(0, hour))
    # In the hours the current slot may still be polled; at night it was left out.
    assert len(claim_slots([job.id], now=slot(0, hour))) == (hour == 14)
    assert len(claim_slots([job.id], now=slot(0, hour + 1))) == 1
    account(1, 12)
    reasons = {reason: slots for _, _, slots, reason in gaps()}
    assert reasons.get(CLOSED, 0) == (5 if hour == 22 else 0)


def test_paused_job_whose_hours_end_is_polled_once_it_is_resumed(job: PollJob) -> None:
    pause_job(job.id, now=slot(0, 22))
    change_job(job.id, market_hours=False, now=slot(0, 22) + HOUR / 4)
    resume_job(job.id, now=slot(0, 22) + HOUR / 2)
    poll(job, slot(0, 22) + HOUR / 2)
    account(1, 3)
    assert [reason for _, _, _, reason in gaps()] == [NOT_POLLED, CLOSED, NOT_POLLED]
    assert gaps()[1][1] == slot(0, 21)


def test_market_hours_begin_after_the_current_slot(job: PollJob) -> None:
    change_job(job.id, market_hours=False, now=slot(0, 14))
    change_job(job.id, market_hours=True, now=slot(0, 22))
    poll(job, slot(0, 22))
    assert claim_slots([job.id], now=slot(0, 23)) == []


def test_market_hours_of_a_job_without_a_price_wait_for_it() -> None:
    job = create_job(symbols=["AAPL"], interval=3600, provider="finnhub", now=slot(5, 12))
    assert change_job(job.id, market_hours=True, now=slot(5, 12)).market_hours_from is None
    poll(job, slot(5, 13))
    assert claim_slots([job.id], now=slot(5, 14)) == []


def test_change_of_all_at_once_accounts_once(job: PollJob) -> None:
    changed = change_job(job.id, symbols=["AAPL", "MSFT"], interval=60, market_hours=False, now=slot(0, 22))
    assert (changed.interval, changed.market_hours, changed.market_hours_from) == (60, False, None)
    assert [reason for _, _, _, reason in gaps()] == [NOT_POLLED, CLOSED]
    assert gaps()[-1][1] == slot(0, 22)


def test_stop_at_night_leaves_the_night_as_it_is(job: PollJob) -> None:
    stop_job(job.id, now=slot(0, 22))
    assert [reason for _, _, _, reason in gaps()] == [NOT_POLLED, CLOSED]


def test_hours_of_a_clock_that_was_ahead_begin_when_it_is_set_right(job: PollJob) -> None:
    account(21, 12)
    poll(job, slot(21, 12))
    change_job(job.id, market_hours=False, now=slot(21, 12))
    change_job(job.id, market_hours=True, now=slot(21, 12))
    # The clock is set right, on a Tuesday.
    account(1, 22)
    job.refresh_from_db()
    assert job.market_hours_from is not None
    assert job.market_hours_from <= slot(1, 22) + timedelta(seconds=6)
    assert claim_slots([job.id], now=slot(1, 23)) == []


def test_calendar_that_has_ended_leaves_the_usual_week() -> None:
    # A Saturday of Jakarta's, whose holidays are announced a year ahead.
    far = datetime(2101, 12, 31, 3, tzinfo=UTC)
    job = create_job(symbols=["BBCA.JK"], interval=3600, provider="yfinance", market_hours=True, now=far)
    poll(job, far)
    assert claim_slots([job.id], now=far + HOUR) == []
    assert len(claim_slots([job.id], now=far + 2 * DAY)) == 1
