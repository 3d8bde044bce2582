"""Whatever happens in whatever order: each slot that was due has its run, or lies in one gap."""

import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings as django_settings
from django.db import connection
from django_celery_beat.models import PeriodicTask
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)

from prices.jobs.services import change_job, create_job, pause_job, resume_job, stop_job
from prices.ledger.accounting import SETTLED_AFTER, account_slots
from prices.ledger.gaps import GapReason
from prices.ledger.runs import Claim, RunOutcome, abandon_overdue_runs, claim_slots, finish
from prices.models import BeatTerm, PollGap, PollJob, PollRun, RunState
from tests.examples import examples
from tests.prices.job_histories import Grid, History, check

pytestmark = pytest.mark.django_db(transaction=True)
START = datetime(2026, 1, 5, tzinfo=UTC)
MS = timedelta(milliseconds=1)
INTERVALS = [1, 2, 3, 7, 30, 60]
SYMBOLS = {
    "simulated": [("SIM-A",), ("SIM-B",), ("SIM-A", "SIM-B"), ("SIM-B", "SIM-A")],
    "yfinance": [("7203.T",), ("6758.T",), ("AAPL", "7203.T"), ("7203.T", "AAPL")],
}
PROVIDERS = ["yfinance", "simulated"]
# When Tokyo opens, and an hour after it closes.
EDGES = [timedelta(0), timedelta(hours=7.5)]
DAY = timedelta(days=1)


class Accounting(RuleBasedStateMachine):
    jobs: Bundle[History] = Bundle("jobs")

    @initialize(target=jobs, interval=st.sampled_from([1, 2, 3]))
    def begin(self, interval: int) -> Any:
        for model in (PollGap, PollRun, PollJob, PeriodicTask, BeatTerm):
            model.objects.all().delete()
        # Tokyo opens in a while, for the first time in this year.
        self.now = START - timedelta(minutes=30)
        self.edges_left = 2
        self.histories: list[History] = []
        self.claims: dict[UUID, Claim] = {}
        self.term: BeatTerm | None = None
        in_hours = self._new_history(interval, "yfinance", is_polled=True)
        return multiple(in_hours, self._new_history(interval, "simulated", is_polled=False))

    @rule(
        target=jobs,
        interval=st.sampled_from(INTERVALS),
        provider=st.sampled_from(PROVIDERS),
        is_polled=st.booleans(),
    )
    def create(self, interval: int, provider: str, is_polled: bool) -> History:
        return self._new_history(interval, provider, is_polled=is_polled)

    def _new_history(self, interval: int, provider: str, *, is_polled: bool) -> History:
        symbols, in_hours = SYMBOLS[provider][0], provider != "simulated"
        job = create_job(
            symbols=symbols, interval=interval, provider=provider, market_hours=in_hours, now=self.now
        )
        # The slot in which it is created is its first.
        grid = Grid(interval, self.now - timedelta(seconds=interval), symbols=symbols, provider=provider)
        history = History(job.id, self.now, [grid], [(self.now, "active")], market_hours=in_hours)
        self.histories.append(history)
        if is_polled:
            self.poll(history)
        return history

    @rule(ms=st.integers(1, 90_000), led=st.booleans())
    def pass_time(self, ms: int, led: bool) -> None:
        before, self.now = self.now, self.now + ms * MS
        if not led:
            self.term = None
            return
        self.term = self.term or BeatTerm(holder="test", began_at=before)
        self.term.renewed_at = self.term.until = self.now
        self.term.save()

    @rule(number=st.integers(0, 1), from_edge_ms=st.integers(-60_000, 60_000), led=st.booleans())
    def pass_time_to_an_edge(self, number: int, from_edge_ms: int, led: bool) -> None:
        if not self.edges_left:
            return
        self.edges_left -= 1
        edge = START + EDGES[number] + from_edge_ms * MS
        edge += -((edge - self.now) // DAY) * DAY
        self.pass_time((edge - self.now) // MS, led)

    @rule(history=jobs, late_ms=st.one_of(st.just(0), st.integers(0, 60_000)))
    def claim(self, history: History, late_ms: int) -> None:
        for claim in claim_slots([history.job_id], now=self.now - late_ms * MS):
            assert not history.is_closed_at(claim.due_at, history.grids[-1])
            self.claims[claim.run_id] = claim

    @rule(history=jobs, count=st.integers(1, 12), misses=st.integers(0, 2**30))
    def poll_for_a_while(self, history: History, count: int, misses: int) -> None:
        for number in range(count):
            self.pass_time(history.grids[-1].interval * 1000, led=True)
            if not misses >> number & 1:
                self.claim(history, 0)

    @rule(state=st.sampled_from(["stored", "shared", "failed", "skipped"]), place=st.integers(0, 99))
    def finish(self, state: str, place: int) -> None:
        if self.claims:
            claim = self.claims.pop(sorted(self.claims)[place % len(self.claims)])
            self._finish(claim, RunState(state))

    def _finish(self, claim: Claim, state: RunState) -> None:
        points = int(state in {RunState.STORED, RunState.SHARED})
        # A first price counts while the job is not accounted for up to its slot, by a change of it say.
        counts = claim.due_at > PollJob.objects.get(id=claim.job.id).accounted_until
        finish([RunOutcome(claim, state, points=points)])
        if points and counts:
            (history,) = (each for each in self.histories if each.job_id == claim.job.id)
            history.begin_hours(claim.due_at)

    @rule(history=jobs)
    def poll(self, history: History) -> None:
        self.claim(history, 0)
        for run_id in [run_id for run_id, claim in self.claims.items() if claim.job.id == history.job_id]:
            self._finish(self.claims.pop(run_id), RunState.STORED)

    @rule(place=st.integers(0, 99), count=st.integers(1, 5))
    def kill_workers(self, place: int, count: int) -> None:
        ids = sorted(self.claims)[place % (len(self.claims) + 1) :][:count]
        for run_id in ids:
            del self.claims[run_id]
        long_ago = self.now - timedelta(seconds=django_settings.POLL_DEADLINE_S + 1)
        PollRun.objects.filter(id__in=ids).update(started_at=long_ago)
        assert abandon_overdue_runs(now=self.now) == len(ids)

    @rule(history=jobs)
    def pause_or_resume(self, history: History) -> None:
        if history.status == "paused":
            # It is polled at once, in its current slot.
            history.end_hours(self.now - timedelta(seconds=history.grids[-1].interval))
        if history.status != "stopped":
            change = resume_job if history.status == "paused" else pause_job
            history.changes.append((self.now, change(history.job_id, now=self.now).status))

    @rule(history=jobs)
    def stop(self, history: History) -> None:
        if history.status != "stopped":
            history.end_grid(self.now, GapReason.STOPPED)
            stop_job(history.job_id, now=self.now)
            history.changes.append((self.now, "stopped"))

    @rule(history=jobs, interval=st.sampled_from(INTERVALS))
    def change_interval(self, history: History, interval: int) -> None:
        if history.status != "stopped" and interval != history.grids[-1].interval:
            end = history.end_grid(self.now, GapReason.INTERVAL_CHANGED)
            change_job(history.job_id, interval=interval, now=self.now)
            history.grids.append(replace(history.grids[-1], interval=interval, after=end, until=None))

    @rule(history=jobs, number=st.integers(0, 3))
    def change_symbols(self, history: History, number: int) -> None:
        former = history.grids[-1]
        symbols = SYMBOLS[former.provider][number]
        if history.status != "stopped" and symbols != former.symbols:
            end = history.end_grid(self.now, GapReason.SYMBOLS_CHANGED)
            if not set(symbols) <= set(former.symbols):
                history.end_hours(end)
            change_job(history.job_id, symbols=symbols, now=self.now)
            history.grids.append(replace(former, symbols=symbols, after=end, until=None))

    @rule(history=jobs)
    def change_market_hours(self, history: History) -> None:
        if history.status == "stopped":
            return
        if history.market_hours:
            history.end_market_hours(self.now)
        history.market_hours = not history.market_hours
        change_job(history.job_id, market_hours=history.market_hours, now=self.now)
        if PollJob.objects.get(id=history.job_id).last_success_at is not None:
            history.begin_hours(self.now)

    @rule(history=jobs)
    def switch_by_hand(self, history: History) -> None:
        task = PeriodicTask.objects.get(poll_job=history.job_id)
        task.enabled = not task.enabled
        task.save()
        history.is_known = False

    @rule(whole=st.booleans())
    def account(self, whole: bool) -> None:
        account_slots(now=self.now, all_jobs=whole)

    def teardown(self) -> None:
        if not hasattr(self, "now"):
            return
        # Later than each slot that was claimed has ended, by clocks ahead too.
        end = self.now + timedelta(seconds=2 * max(INTERVALS))
        account_slots(now=end + SETTLED_AFTER, all_jobs=True)
        terms = list(BeatTerm.objects.values_list("began_at", "renewed_at"))
        for history in self.histories:
            check(history, end - timedelta(seconds=history.grids[-1].interval), terms)


@pytest.mark.hypothesis
def test_each_slot_has_its_run_or_lies_in_one_gap() -> None:
    run_state_machine_as_test(
        Accounting,
        settings=settings(
            max_examples=examples(30),
            stateful_step_count=40,
            # Shrinking a failure takes longer than a test may; its steps are printed as they were.
            phases=[Phase.reuse, Phase.generate],
        ),
    )


def test_claims_changes_and_accounts_at_once_leave_each_slot_in_one_place() -> None:
    jobs = [
        create_job(symbols=["SIM-A"], interval=interval, provider="simulated", now=START)
        for interval in (1, 2, 3)
    ]
    job_ids = [job.id for job in jobs]
    BeatTerm.objects.create(holder="test", began_at=START, renewed_at=START, until=START)
    passed_ms = [0]

    def now() -> datetime:
        return START + passed_ms[0] * MS

    def claim(chance: random.Random) -> None:
        # Later than the accounting takes a slot for over, as a worker that was suspended.
        claims = claim_slots(chance.sample(job_ids, 2), now=now() - chance.choice([0, 0, 4_000, 9_000]) * MS)
        finish([RunOutcome(claim, RunState.STORED) for claim in claims])

    def change(chance: random.Random) -> None:
        chance.choice([pause_job, resume_job, resume_job])(chance.choice(job_ids), now=now())

    def pass_time(chance: random.Random) -> None:
        passed_ms[0] += chance.randrange(1500)

    together = [claim, claim, change, pass_time, *[lambda _: account_slots(now=now(), all_jobs=True)] * 2]
    _at_once(together, times=60)
    end = now() + timedelta(seconds=10)
    account_slots(now=end, all_jobs=True)
    assert PollRun.objects.exists()
    assert PollGap.objects.exists()
    for job in jobs:
        step = timedelta(seconds=job.interval)
        history = History(job.id, START, [Grid(job.interval, START - step)], is_known=False)
        check(history, end - SETTLED_AFTER - step, [(START, START)])


def _at_once(calls: Sequence[Callable[[random.Random], object]], *, times: int) -> None:
    """Make each of the calls so often, each in a thread of its own."""

    def repeat(call: Callable[[random.Random], object], number: int) -> None:
        chance = random.Random(number)
        try:
            for _ in range(times):
                call(chance)
        finally:
            connection.close()

    with ThreadPoolExecutor(len(calls)) as threads:
        for done in [threads.submit(repeat, call, number) for number, call in enumerate(calls)]:
            done.result()
