"""What was due of a job, told apart from what the service wrote, and both compared."""

import bisect
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from uuid import UUID

from prices.ledger.gaps import GapReason
from prices.ledger.grid import phase_of
from prices.models import PollGap, PollRun, RunState
from providers.markets.hours import trading_sessions

Due = datetime
HOUR = timedelta(hours=1)
# The calendars of real symbols.
MARKETS = {"7203.T": "XTKS", "6758.T": "XTKS", "AAPL": "XNYS"}


@dataclass
class Grid:
    """A time in which a job has one interval and its symbols: its slots after one moment, up to another."""

    interval: int
    after: datetime
    until: datetime | None = None
    symbols: tuple[str, ...] = ("SIM-A",)
    provider: str = "simulated"

    def dues(self, until: datetime) -> list[Due]:
        phase = phase_of(self.provider, self.interval, self.symbols)
        step = timedelta(seconds=self.interval)
        epoch = datetime(1970, 1, 1, tzinfo=UTC) + phase
        first = epoch + ((self.after - epoch) // step + 1) * step
        end = self.until or until
        return [first + number * step for number in range((end - first) // step + 1)]

    @cached_property
    def asked(self) -> list[tuple[datetime, datetime]]:
        """When the markets are worth asking, until the slot after each of these times: some weeks of it."""
        start, more = self.after - timedelta(days=7), HOUR + timedelta(seconds=self.interval)
        found = [
            trading_sessions(MARKETS[symbol], start=start, end=start + timedelta(days=30))
            for symbol in self.symbols
        ]
        return [(opens, closes + more) for sessions in found for opens, closes in sessions or []]

    def is_asked_at(self, due: Due) -> bool:
        """Return whether any symbol is polled at a slot by its market: a simulated one always is."""
        is_simulated = not set(self.symbols) <= set(MARKETS)
        return is_simulated or any(opens <= due < until for opens, until in self.asked)


@dataclass
class MarketHours:
    """A time in which a job is polled in market hours alone: its slots after one moment, up to another."""

    after: datetime
    until: datetime | None = None


@dataclass
class History:
    """What happened to a job, told apart from what the service wrote.

    `market_hours`: whether it has them; `hours`: since when, and until when, as far as they have begun.
    """

    job_id: UUID
    created_at: datetime
    grids: list[Grid]
    changes: list[tuple[datetime, str]] = field(default_factory=list)
    cut_off: dict[Due, str] = field(default_factory=dict)
    is_known: bool = True
    market_hours: bool = False
    hours: list[MarketHours] = field(default_factory=list)

    @property
    def status(self) -> str:
        return self.changes[-1][1]

    def grid_dues(self, until: datetime) -> list[list[Due]]:
        return [grid.dues(until) for grid in self.grids]

    def end_grid(self, now: datetime, reason: str) -> datetime:
        """End the grid at this moment, or at a later slot that a clock ahead has claimed; give when."""
        claimed = (
            PollRun.objects.filter(job_id=self.job_id).order_by("-due_at").values_list("due_at", flat=True)
        )
        end = self.grids[-1].until = max([now, *claimed[:1]])
        step = timedelta(seconds=self.grids[-1].interval)
        why = GapReason.PAUSED if self.status == "paused" else reason
        self.cut_off |= {due: str(why) for due in self.grid_dues(end)[-1] if due > now - step}
        return end

    @property
    def in_hours(self) -> bool:
        """Whether market hours have begun and not ended."""
        return bool(self.hours) and self.hours[-1].until is None

    def begin_hours(self, after: datetime) -> None:
        if self.market_hours and not self.in_hours:
            self.hours.append(MarketHours(after))

    def end_hours(self, until: datetime) -> None:
        if self.in_hours:
            self.hours[-1].until = until

    def end_market_hours(self, now: datetime) -> None:
        """End them at this moment; the current slot of an active job stays left out, if it is."""
        grid = self.grids[-1]
        current = grid.dues(now)[-1:]
        if self.status == "active" and current and self.is_closed_at(current[0], grid):
            self.cut_off[current[0]] = GapReason.MARKET_CLOSED
            self.end_hours(now)
        else:
            self.end_hours(now - timedelta(seconds=grid.interval))

    def is_closed_at(self, due: Due, grid: Grid) -> bool:
        """Return whether a slot is left out since the job's markets are closed."""
        applies = any(each.after < due and (each.until is None or due <= each.until) for each in self.hours)
        return applies and not grid.is_asked_at(due)

    def status_before(self, moment: datetime) -> str:
        place = bisect.bisect_left(self.changes, moment, key=lambda change: change[0])
        return self.changes[max(place - 1, 0)][1]

    def reason_of(self, due: Due, grid: Grid, terms: list[tuple[datetime, datetime]]) -> str:
        cut_off = self.cut_off.get(due)
        is_paused = self.status_before(due + timedelta(seconds=grid.interval)) == "paused"
        if cut_off == GapReason.PAUSED or (cut_off is None and is_paused):
            return GapReason.PAUSED
        if self.is_closed_at(due, grid):
            return GapReason.MARKET_CLOSED
        if cut_off is not None:
            return cut_off
        led = any(began <= due <= renewed + timedelta(seconds=0.5) for began, renewed in terms)
        return GapReason.NOT_POLLED if led else GapReason.DOWN


def first_led(history: History, terms: list[tuple[datetime, datetime]]) -> datetime | None:
    """Return when a beat first led once the job was created; None: it never did."""
    created_at = history.created_at
    led = [began for began, renewed in terms if renewed + timedelta(seconds=0.5) >= created_at]
    return max(min(led), created_at) if led else None


def gap_slots(job_id: UUID) -> list[tuple[Due, str, UUID]]:
    """Return each slot of each gap, with the reason and the row."""
    found = []
    for gap in PollGap.objects.filter(job_id=job_id).order_by("from_due"):
        step = (gap.to_due - gap.from_due) / max(gap.slots - 1, 1)
        found += [(gap.from_due + number * step, gap.reason, gap.id) for number in range(gap.slots)]
    return found


def check(history: History, until: datetime, terms: list[tuple[datetime, datetime]]) -> None:
    """Compare what is stored with what was due up to this moment."""
    runs = dict(PollRun.objects.filter(job_id=history.job_id).values_list("due_at", "state"))
    first = first_led(history, terms)
    # What was due before is missed by nobody.
    grids = [
        [slot for slot in dues if slot in runs or (first is not None and slot >= first)]
        for dues in history.grid_dues(until)
    ]
    due = [slot for dues in grids for slot in dues]
    in_gaps = gap_slots(history.job_id)
    polled = [slot for slot, state in runs.items() if state != RunState.ABANDONED]
    assert sorted([*polled, *(slot for slot, _, _ in in_gaps)]) == due
    row_of = {slot: (reason, row) for slot, reason, row in in_gaps}
    for grid, dues in zip(history.grids, grids, strict=True):
        before = None
        for slot in dues:
            reason, row = row_of.get(slot, (None, None))
            if reason is not None and history.is_known:
                wanted = history.reason_of(slot, grid, terms)
                assert reason == (GapReason.ABANDONED if slot in runs else wanted), slot
            # An abandoned run of a grid that is no longer the job's is a row by itself.
            if before is not None and before[0] == reason != GapReason.ABANDONED:
                assert before[1] == row, f"{slot} and the one before are not in one row"
            before = None if reason is None else (reason, row)
