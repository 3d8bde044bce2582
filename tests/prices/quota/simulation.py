"""Days of slots by a clock of its own: what each job would ask for, without a database or a provider."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from prices.ledger.grid import next_slot, phase_of
from prices.models import PollJob
from prices.quota.allowance import Allowance, make_allowance
from prices.quota.demand import demand_of, key_of

# A Monday; Thursday is Thanksgiving, and New York closes at 13:00 on Friday.
MONDAY = datetime(2026, 11, 23, tzinfo=UTC)
DAY = timedelta(days=1)

# A slot of a job, and what is asked for at it.
Slot = tuple[datetime, PollJob, tuple[str, ...]]


def job_of(symbols: Sequence[str], interval: int, provider: str = "alpha_vantage") -> PollJob:
    """Return a job that has polled before."""
    return PollJob(symbols=list(symbols), interval=interval, provider=provider, last_run_at=MONDAY)


def share(jobs: Sequence[PollJob], *, now: datetime = MONDAY) -> Allowance:
    """Share the provider's budget among these jobs."""
    (provider,) = {str(job.provider) for job in jobs}
    demands = [demand_of(key_of(job), provider) for job in jobs]
    return make_allowance(provider, {demand.key: demand for demand in demands}, now=now)


def run(jobs: Sequence[PollJob], *, days: float, start: datetime = MONDAY) -> list[Slot]:
    """Return every slot of some days, in order."""
    allowance = share(jobs, now=start)
    slots = [slot for job in jobs for slot in _slots_of(job, allowance, start, start + days * DAY)]
    return sorted(slots, key=lambda slot: slot[0])


def requests_of(slots: Sequence[Slot]) -> list[datetime]:
    """Return when requests were sent, where each symbol is one."""
    return [due_at for due_at, _, symbols in slots for _ in symbols]


def most_in_a_window(times: Sequence[datetime], window: timedelta) -> int:
    """Return how many the fullest window holds, both of its ends included."""
    most = first = 0
    for number, moment in enumerate(times):
        while times[first] < moment - window:
            first += 1
        most = max(most, number - first + 1)
    return most


def _slots_of(job: PollJob, allowance: Allowance, start: datetime, end: datetime) -> Iterator[Slot]:
    due_at = next_slot(start, job.interval, phase_of(job.provider, job.interval, job.symbols))
    while due_at < end:
        yield due_at, job, allowance.symbols_at(job, due_at)
        due_at += timedelta(seconds=job.interval)
