"""The scheduler's benchmark counts what the tables say: due, missed, doubled, late."""

from datetime import UTC, datetime, timedelta

import pytest

from bench.poll_jobs import due_slots, forget_jobs, make_jobs
from bench.slots_polled import Polled, Spread, Window, read_polled
from prices.ledger.grid import run_id_of
from prices.models import PollJob, PollRun, PricePoint, RawMarketData

pytestmark = pytest.mark.django_db(transaction=True)

BEGIN = datetime(2026, 1, 5, 12, tzinfo=UTC)
WINDOW = Window(BEGIN, BEGIN + timedelta(seconds=20))
RECEIVED_S, STORED_S = 0.1, 0.2


@pytest.fixture
def job() -> PollJob:
    forget_jobs()
    (job,) = make_jobs([5])
    return job


def poll(job: PollJob, due_at: datetime, *, state: str = "stored", points: int = 1) -> None:
    """Note a run that began 0.05 s late, and ended 0.2 s late."""
    PollRun.objects.create(
        id=run_id_of(job.id, due_at),
        job=job,
        due_at=due_at,
        state=state,
        points=points,
        started_at=due_at + timedelta(seconds=0.05),
        finished_at=due_at + timedelta(seconds=STORED_S),
    )


def ask(job: PollJob, due_at: datetime, *, confirmed_s: float = 0.3) -> None:
    """Note a request, its point, and when Kafka confirmed that."""
    received_at = due_at + timedelta(seconds=RECEIVED_S)
    raw = RawMarketData.objects.create(
        provider="simulated", symbols=job.symbols, outcome="quote", received_at=received_at, latency_ms=1
    )
    PricePoint.objects.create(
        symbol=job.symbols[0],
        provider="simulated",
        price=1,
        precision="unknown",
        received_at=received_at,
        raw=raw.id,
        published_at=due_at + timedelta(seconds=confirmed_s),
    )


def counts(polled: Polled) -> tuple[int, int, int, int]:
    return polled.due, polled.sent, polled.missed, polled.doubled


def test_each_slot_of_the_window_is_due_once(job: PollJob) -> None:
    slots = due_slots(job, begin=BEGIN, end=WINDOW.end)
    assert len(slots) == 4
    assert slots[0] - BEGIN < timedelta(seconds=5)
    assert due_slots(job, begin=slots[0], end=slots[1]) == slots[:1]
    assert due_slots(job, begin=BEGIN, end=BEGIN) == []


def test_polled_slots_are_neither_missed_nor_doubled(job: PollJob) -> None:
    for due_at in due_slots(job, begin=BEGIN, end=WINDOW.end):
        poll(job, due_at)
        ask(job, due_at)
    polled = read_polled([job], None, WINDOW)
    assert counts(polled) == (4, 4, 0, 0)
    assert polled.in_second == 1
    assert [round(spread.most_ms or 0) for spread in (polled.at_worker, polled.stored, polled.confirmed)] == [
        50,
        200,
        300,
    ]


def test_slot_without_a_run_or_without_a_price_is_missed(job: PollJob) -> None:
    first, second, third, _ = due_slots(job, begin=BEGIN, end=WINDOW.end)
    poll(job, first, state="failed", points=0)
    poll(job, second)
    ask(job, second, confirmed_s=1.5)
    poll(job, third, state="shared")
    polled = read_polled([job], None, WINDOW)
    assert counts(polled) == (4, 3, 2, 0)
    # The second is late, the third took the price of another.
    assert polled.in_second == 0.25


def test_second_request_of_a_run_is_doubled(job: PollJob) -> None:
    first, second, *_ = due_slots(job, begin=BEGIN, end=WINDOW.end)
    poll(job, first)
    ask(job, first)
    ask(job, first)
    poll(job, second, state="shared")
    assert read_polled([job], None, WINDOW).doubled == 1


def test_spread_of_waits() -> None:
    assert Spread.of(number / 1000 for number in range(1, 101)) == Spread(100, 50, 99, 100)
    assert Spread.of([]) == Spread(0, None, None, None)
