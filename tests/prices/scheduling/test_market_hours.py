"""What beat sends of jobs with `market_hours`, by a clock of the test's own."""

import json
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import redis
from django.conf import settings as django_settings
from hypothesis import given
from hypothesis import strategies as st

from marketdata.celery import app
from prices.database.uuid7 import EPOCH, epoch_ms
from prices.jobs.services import change_job, create_job
from prices.ledger.market_hours import Calendars, hours_at
from prices.ledger.runs import RunOutcome, claim_slots, finish
from prices.models import PollJob, RunState
from prices.outage_log import Outage
from prices.scheduling import known_hours
from prices.scheduling.due_heap import DueHeap, GroupKey
from prices.scheduling.known_hours import KnownHours
from prices.scheduling.leader_lease import Term
from prices.scheduling.scheduler import PollJobs
from tests.waiting import wait_until

NEW_YORK = ZoneInfo("America/New_York")
QUEUE = "poll.finnhub"
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
US: Calendars = frozenset({"XNYS"})


def at(text: str) -> int:
    return epoch_ms(datetime.fromisoformat(text).replace(tzinfo=NEW_YORK))


@given(st.integers(at("2026-01-05 00:00"), at("2026-12-20 00:00")), st.sampled_from([1, 60, 3600, 86_400]))
def test_heap_pops_the_slots_that_are_polled_and_no_others(start: int, interval_s: int) -> None:
    key = GroupKey(QUEUE, None, interval_s * 1000, 137, US)
    week = hours_at(US, start)
    assert week is not None
    heap = DueHeap(_Made())
    heap.add("a", key, now=start)
    now, popped = start, []
    for _ in range(30):
        now = max(heap.next_due() or 0, now)
        popped += [each.due for each in heap.pop_due(now)]
    first = key.slot_at(start)
    expected: list[int] = []
    while len(expected) < len(popped):
        first += key.interval
        found = hours_at(US, first)
        assert found is not None
        if found.have_slot(first, key.interval):
            expected.append(first)
    assert popped == expected
    assert len(popped) >= 20


class _Made:
    """Hours that are made where they are asked for."""

    def have_slot(self, key: GroupKey, due: int) -> bool:
        found = hours_at(US, due)
        return found is None or found.have_slot(due, key.interval)

    def next_slot(self, key: GroupKey, due: int) -> int:
        found = hours_at(US, due)
        assert found is not None
        return found.next_slot(due, key.interval)


def test_slots_are_sent_until_the_hours_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    key, night = GroupKey(QUEUE, None, MINUTE, 0, US), at("2026-11-24 20:00")
    hours = KnownHours()
    # Nothing waits for the thread that makes them.
    assert hours.have_slot(key, night)
    assert hours.next_slot(key, night) == night + MINUTE
    wait_until(lambda: not hours.have_slot(key, night))
    assert hours.next_slot(key, night) == at("2026-11-25 09:30")


def test_hours_of_weeks_that_are_over_are_forgotten() -> None:
    key, hours = GroupKey(QUEUE, None, MINUTE, 0, US), KnownHours()
    for week in range(5):
        night = at("2026-11-24 20:00") + 7 * week * DAY
        wait_until(lambda night=night: not hours.have_slot(key, night))  # type: ignore[misc]
    wait_until(lambda: len(hours._known) == 2)


@dataclass
class Beat:
    """The poll jobs of a beat, and its clock."""

    now: int
    jobs: PollJobs = field(init=False)

    def __post_init__(self) -> None:
        outage = Outage(began="redis.away", ended="redis.back")
        self.jobs = PollJobs(app, outage, lambda: self.now)

    def lead(self, *, led_before: datetime | None = None) -> None:
        self.jobs.begin(Term(1, EPOCH + timedelta(milliseconds=self.now), led_before))

    def sent(self) -> list[str]:
        self.jobs._job_sync._looked_at = float("-inf")
        self.jobs.send_due()
        return ids_sent()

    def sent_until(self, end: int, *, step: int = 10 * MINUTE) -> list[int]:
        """Return when something was sent, looking so often."""
        found = []
        for moment in range(self.now + step, end, step):
            # Else it is a clock that ran ahead.
            self.now = self.jobs._latest = moment
            found += [moment] * bool(self.sent())
        return found


def ids_sent() -> list[str]:
    with redis.Redis.from_url(django_settings.REDIS_URL) as broker:
        messages: list[dict[str, Any]] = [json.loads(raw) for raw in broker.lrange(QUEUE, 0, -1)]
        broker.delete(QUEUE)
    return [job_id for each in messages for job_id in json.loads(b64decode(each["body"]))[0][0]]


@pytest.fixture
def queue(transactional_db: None) -> Iterator[None]:
    ids_sent()
    yield
    ids_sent()


def make_job(*symbols: str, interval: int = 600, created: str = "2026-11-23 12:00") -> PollJob:
    """Return a job that has its first price."""
    job = create_job(
        symbols=symbols,
        interval=interval,
        provider="finnhub",
        market_hours=True,
        now=datetime.fromisoformat(created).replace(tzinfo=NEW_YORK),
    )
    (claim,) = claim_slots([job.id], now=job.created_at)
    finish([RunOutcome(claim, RunState.STORED, points=1)])
    return job


def beat_at(text: str, *, calendars: Calendars = US) -> Beat:
    """Return a beat that leads and knows the hours of these weeks."""
    beat = Beat(at(text))
    beat.lead()
    hours = beat.jobs._due_heap._hours
    key = GroupKey(QUEUE, None, MINUTE, 0, calendars)
    for moment in (beat.now, beat.now + 7 * DAY):
        hours.have_slot(key, moment)
    wait_until(lambda: len(hours._known) == 2)  # type: ignore[attr-defined]
    ids_sent()
    return beat


@pytest.mark.usefixtures("queue")
def test_nothing_is_sent_from_close_to_open() -> None:
    job = make_job("AAPL")
    beat = beat_at("2026-11-24 15:00")
    times = beat.sent_until(at("2026-11-25 12:00"))
    # Until the first slot after 17:00, and from the first one after 09:30 on.
    night = [(before, after) for before, after in pairwise(times) if after - before > HOUR]
    ((last, first),) = night
    assert at("2026-11-24 17:00") <= last <= at("2026-11-24 17:20")
    assert at("2026-11-25 09:30") <= first <= at("2026-11-25 09:50")
    assert beat.jobs.knows(job.id)
    # In between it does not even look at the job.
    beat.now = at("2026-11-25 19:00")
    beat.jobs._latest = beat.now
    beat.sent()
    assert beat.jobs.seconds_to_next() > 14 * 3600


@pytest.mark.usefixtures("queue")
def test_weekend_with_a_change_of_the_clock_is_left_out() -> None:
    make_job("AAPL", interval=3600, created="2026-10-30 12:00")
    beat = beat_at("2026-10-30 18:30")
    times = beat.sent_until(at("2026-11-02 11:00"), step=30 * MINUTE)
    assert times[0] >= at("2026-11-02 09:30")
    assert times[0] < at("2026-11-02 11:00")


@pytest.mark.usefixtures("queue")
def test_job_of_two_markets_is_sent_in_the_hours_of_both() -> None:
    make_job("AAPL", "7203.T", interval=3600)
    both = frozenset({"XNYS", "XTKS"})
    beat = beat_at("2026-11-24 06:00", calendars=both)
    hours = {
        (EPOCH + timedelta(milliseconds=moment)).astimezone(UTC).hour
        for moment in beat.sent_until(at("2026-11-25 06:00"), step=30 * MINUTE)
    }
    # Tokyo from 0 to 7:30, New York from 14:30 to 22, and a slot each after it.
    assert hours <= {0, 1, 2, 3, 4, 5, 6, 7, 8, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23}
    assert {3, 16, 21} <= hours
    assert not {10, 11, 12, 13} & hours


@pytest.mark.usefixtures("queue")
def test_new_job_is_sent_at_night_until_its_first_price() -> None:
    beat = beat_at("2026-11-24 20:00")
    job = create_job(
        symbols=["AAPL"],
        interval=600,
        provider="finnhub",
        market_hours=True,
        now=EPOCH + timedelta(milliseconds=beat.now),
    )
    wait_until(lambda: beat.sent() == [str(job.id)])
    assert beat.sent_until(beat.now + HOUR)
    (claim,) = claim_slots([job.id], now=EPOCH + timedelta(milliseconds=beat.now))
    finish([RunOutcome(claim, RunState.STORED, points=1)])
    beat.sent()
    assert beat.sent_until(beat.now + 3 * HOUR) == []


@pytest.mark.usefixtures("queue")
def test_change_to_market_hours_and_back_is_followed() -> None:
    job = make_job("AAPL")
    beat = beat_at("2026-11-24 20:00")
    assert beat.sent_until(beat.now + HOUR) == []
    change_job(job.id, market_hours=False, now=EPOCH + timedelta(milliseconds=beat.now))
    assert beat.sent_until(beat.now + HOUR)
    change_job(job.id, market_hours=True, now=EPOCH + timedelta(milliseconds=beat.now))
    beat.sent()
    assert beat.sent_until(beat.now + HOUR) == []


@pytest.mark.usefixtures("queue")
@pytest.mark.parametrize(
    ("led_before", "takes_over", "is_sent"),
    [
        # Within the hours, and outside of them.
        ("2026-11-24 12:00:00", "2026-11-24 12:00:05", True),
        ("2026-11-24 20:00:00", "2026-11-24 20:00:05", False),
        # Nobody led at the last slot, or at the first one.
        ("2026-11-24 16:59:00", "2026-11-25 03:00:00", False),
        ("2026-11-25 09:20:00", "2026-11-25 09:30:05", True),
    ],
)
def test_beat_that_takes_over_sends_what_is_due_in_the_hours(
    led_before: str, takes_over: str, is_sent: bool
) -> None:
    # A slot at each full minute and five seconds: one falls between the two moments.
    beat = beat_at(takes_over)
    key = GroupKey(QUEUE, "AAPL", MINUTE, at("2026-11-24 12:00:04") % MINUTE, US)
    beat.jobs._due_heap.add("a job", key, now=at("2026-11-23 12:00"))
    beat.jobs._due_heap.restart(since=at(led_before), now=beat.now)
    assert bool(beat.jobs._due_heap.pop_due(beat.now)) is is_sent


@pytest.mark.usefixtures("queue")
def test_jobs_with_hours_and_without_go_out_together_while_it_is_open() -> None:
    beat = beat_at("2026-11-24 12:00")
    both = {
        str(make_job("AAPL").id),
        str(create_job(symbols=["AAPL"], interval=600, provider="finnhub").id),
    }
    beat.sent()
    messages: list[set[str]] = []

    def goes_out() -> bool:
        beat.now = beat.jobs._latest = beat.now + MINUTE
        messages.append(set(beat.sent()))
        return messages[-1] == both

    wait_until(goes_out)


def test_calendars_that_fail_are_left_to_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_hours, "hours_at", lambda *_: None)
    key, hours = GroupKey(QUEUE, None, MINUTE, 0, US), KnownHours()
    night = at("2026-11-24 20:00")
    hours.have_slot(key, night)
    wait_until(lambda: bool(hours._known))
    assert hours.have_slot(key, night)
    assert hours.next_slot(key, night) == night + MINUTE
