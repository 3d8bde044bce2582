"""The slots that were due, and where each went: it has a run, or lies in a gap."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from prices.ledger.grid import next_slot, phase_of
from prices.ledger.set_back import BEYOND
from tests.chaos.world import World

# Another beat leads within so long of the death of the one before.
TAKEOVER_S = 3.0
# A slot that is polled so soon after one that was not ends no outage.
_TOGETHER = timedelta(seconds=0.5)


@dataclass(frozen=True, slots=True)
class GapRow:
    """A row of poll_gaps."""

    first: datetime
    last: datetime
    slots: int
    reason: str

    def due(self, interval: int) -> list[datetime]:
        """Return its slots, if a job of this interval has them."""
        return _each(self.first, self.last, interval)


@dataclass(slots=True)
class History:
    """One job: its grid, when it was polled, how far it is accounted for, and what became of its slots."""

    job_id: UUID
    interval: int
    phase: timedelta
    began: datetime
    ended: datetime
    accounted_until: datetime
    runs: dict[datetime, str] = field(default_factory=dict)
    gaps: list[GapRow] = field(default_factory=list)

    def due(self, until: datetime) -> list[datetime]:
        """Return its slots up to a moment."""
        return _each(next_slot(self.began, self.interval, self.phase), until, self.interval)

    @property
    def gap_slots(self) -> list[datetime]:
        """Return the slots of all its gaps."""
        return [slot for gap in self.gaps for slot in gap.due(self.interval)]


def read_histories(world: World) -> list[History]:
    """Return the history of each job of the run."""
    rows = world.database.rows("SELECT id, interval, provider, symbols, accounted_until FROM poll_jobs")
    histories = {
        job_id: History(
            job_id,
            interval,
            phase_of(provider, interval, symbols),
            # No beat has led yet: then nothing was due.
            world.accounted_from.get(job_id) or until,
            max(world.stopped_at or until, until),
            until,
        )
        for job_id, interval, provider, symbols, until in rows
    }
    for job_id, due_at, state in world.database.rows("SELECT job_id, due_at, state FROM poll_runs"):
        histories[job_id].runs[due_at] = state
    gaps = "SELECT job_id, from_due, to_due, slots, reason FROM poll_gaps ORDER BY from_due"
    for job_id, *gap in world.database.rows(gaps):
        histories[job_id].gaps.append(GapRow(*gap))
    return list(histories.values())


def slots_unaccounted(world: World) -> list[str]:
    """Return the slots, up to where their job is accounted for, without a run and in no gap."""
    found = []
    for history in read_histories(world):
        known = history.runs.keys() | set(history.gap_slots)
        missing = [slot for slot in history.due(history.accounted_until) if slot not in known]
        found += [f"job {history.job_id}: {slot}" for slot in missing]
    return found


def jobs_accounted_ahead(world: World) -> list[str]:
    """Return the jobs that are accounted for beyond their end: nobody missed what was due after it.

    Where PostgreSQL's clock was set back by up to 5 s just before, slots of the seconds to come were polled.
    """
    assert world.ended_at is not None
    latest = world.ended_at + BEYOND
    return [
        f"job {history.job_id}: until {history.accounted_until}, ended at {world.ended_at}"
        for history in read_histories(world)
        if history.accounted_until > latest
    ]


def gaps_unsound(world: World) -> list[str]:
    """Return gaps off their job's grid, of a wrong number of slots, or with a slot of another gap or a run.

    A claim that its worker abandoned is both: a run, and in a gap.
    """
    return [wrong for history in read_histories(world) for wrong in _unsound_gaps(history)]


def _unsound_gaps(history: History) -> Iterator[str]:
    times = Counter(history.gap_slots)
    for gap in history.gaps:
        slots = gap.due(history.interval)
        told = f"job {history.job_id}: {gap.slots} slots from {gap.first} to {gap.last}, {gap.reason}"
        just_before = gap.first - timedelta(milliseconds=1)
        if next_slot(just_before, history.interval, history.phase) != gap.first or slots[-1] != gap.last:
            yield f"{told}: not of the grid"
        if len(slots) != gap.slots:
            yield f"{told}: it has {len(slots)}"
        if any(times[slot] > 1 for slot in slots):
            yield f"{told}: in another gap too"
        if any(history.runs.get(slot, "abandoned") != "abandoned" for slot in slots):
            yield f"{told}: polled too"


def long_outages(world: World) -> list[str]:
    """Return the times in which nothing was polled for longer than another beat needs to take over."""
    return [
        f"{len(outage)} slots in {length_s(outage):.1f} s from {outage[0]}"
        for outage in _outages(world, read_histories(world))
        if length_s(outage) > TAKEOVER_S
    ]


def _outages(world: World, histories: Iterable[History]) -> list[list[datetime]]:
    # Not the start, nor the end, at which each job is stopped for itself.
    return [
        outage
        for outage in outages_of(histories)
        if (world.struck_from is None or outage[0] >= world.struck_from)
        and (world.stopped_at is None or outage[0] <= world.stopped_at)
    ]


def length_s(outage: Sequence[datetime]) -> float:
    """Return the seconds from its first slot to its last."""
    return (outage[-1] - outage[0]).total_seconds()


def outages_of(histories: Iterable[History]) -> list[list[datetime]]:
    """Return the slots of gaps as outages: those of all jobs between which none was polled, or hardly one."""
    slots: list[tuple[datetime, bool]] = []
    for history in histories:
        missed = set(history.gap_slots)
        slots += [(slot, True) for slot in missed]
        slots += [(slot, False) for slot in history.runs.keys() - missed]
    outages: list[list[datetime]] = []
    goes_on = False
    for slot, is_missed in sorted(slots):
        if not is_missed:
            goes_on = bool(outages) and slot - outages[-1][-1] < _TOGETHER
        elif goes_on:
            outages[-1].append(slot)
        else:
            outages.append([slot])
        goes_on = goes_on or is_missed
    return outages


def count_slots(world: World) -> dict[str, int]:
    """Count the slots by what became of them, up to the end of polling, and the outages."""
    histories = read_histories(world)
    counts: Counter[str] = Counter()
    for history in histories:
        gaps = {slot: f"gap: {gap.reason}" for gap in history.gaps for slot in gap.due(history.interval)}
        for slot in history.due(history.ended):
            counts["due"] += 1
            counts[history.runs.get(slot) or gaps.get(slot, "not accounted for")] += 1
    outages = _outages(world, histories)
    longest_ms = round(1000 * max(map(length_s, outages), default=0))
    return dict(counts) | {"outages": len(outages), "longest outage, ms": longest_ms}


def _each(first: datetime, last: datetime, interval: int) -> list[datetime]:
    step = timedelta(seconds=interval)
    return [first + number * step for number in range((last - first) // step + 1)]
