"""Polling: claim the slots of jobs that are due together, ask once for all of them, store, publish.

What a provider does not give to a job that named none is handed to the next one's queue, so that each
provider is asked by its own workers only.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

import structlog
from django.db import InterfaceError, OperationalError, connection, transaction

from prices.clock import database_now
from prices.database.errors import DatabaseTrouble, database_trouble
from prices.database.retry import retry_database
from prices.database.uuid7 import new_ids
from prices.fetching.budget_history import load_sent_times
from prices.fetching.exchange import RoundTrip, unknown_symbols
from prices.fetching.ingest import Stored, store_round_trips
from prices.fetching.last_points import add_points
from prices.fetching.recent import received_since, without_recent_price
from prices.fetching.requests import FetchResult, ask_provider
from prices.jobs.services import next_provider, provider_of
from prices.ledger.runs import active_jobs, claim_slots, finish
from prices.models import RunState
from prices.polling.merge import SHARED_UP_TO_S, MergedPoll, PendingRun, resolve_without_price, rotate
from prices.publishing.publisher import publisher
from prices.quota import Allowance, allowance_of, key_of, read_allowance, requests_used
from providers.rate_limits.budget import SentTimes
from providers.rate_limits.permits import is_metered
from providers.rate_limits.redis_scripts import SharedStateError
from providers.rate_limits.symbol_leases import Lease
from providers.registry import get_provider, missing_setting

log = structlog.get_logger(__name__)

FULLY_USED = "budget: the provider's own jobs want all of it"


@dataclass(slots=True)
class Polled:
    """What became of claimed slots: the state of each job's run, and those that go on at another provider."""

    states: dict[UUID, RunState] = field(default_factory=dict)
    go_on: dict[str, list[PendingRun]] = field(default_factory=dict)


def claim_and_poll(job_ids: Sequence[UUID], *, now: datetime | None = None, at: str | None = None) -> Polled:
    """Claim the jobs' slots at `now`, by default by PostgreSQL's clock, and poll them by provider.

    `at` is the only provider that this worker asks; None: it asks all. Jobs for which there is nothing to do
    are left out: the slot was claimed before, or the job is unknown, paused, stopped or switched off, or its
    markets are closed. A provider's failure is an outcome, not an exception.
    """
    claims = retry_database(lambda: claim_slots(job_ids, now=now))
    runs = [PendingRun.of(claim) for claim in claims]
    by_provider: dict[str, list[PendingRun]] = {}
    for run in runs:
        by_provider.setdefault(provider_of(run.claim.job), []).append(run)
    polled = Polled()
    for provider, together in by_provider.items():
        if at is None or at == provider:
            poll_runs(provider, together, polled)
        else:
            polled.go_on.setdefault(provider, []).extend(together)
    return polled


def poll_runs(provider: str, runs: Sequence[PendingRun], polled: Polled) -> None:
    """Ask the provider for what the runs wait for, and note in `polled` what became of each.

    Slots that another provider did not serve come after the others, and take what those left.
    """
    own = [run for run in runs if not run.tried]
    fallbacks = [run for run in runs if run.tried]
    for together in (own, fallbacks):
        if together:
            _poll_together(_Poll(provider, together, polled))


def _poll_together(poll: "_Poll") -> None:
    missing = missing_setting(poll.provider)
    if missing is not None:
        poll.fail(poll.merged.symbols, f"not_configured: set {missing}")
    else:
        retry_database(poll.apply_allowance)
        retry_database(lambda: poll.share_recent(list(poll.merged.by_symbol)))
        poll.ask()
    poll.end()


class _Poll:
    def __init__(self, provider: str, runs: Sequence[PendingRun], polled: Polled) -> None:
        self.provider = provider
        self.merged = MergedPoll(runs, provider=provider)
        self.polled = polled
        self._claimed_at = min(run.claim.claimed_at for run in runs)
        self._deadline = min(run.claim.deadline for run in runs)
        intervals = [run.claim.job.interval for run in runs]
        self._patience_s = 0.75 * min(intervals)
        self._slot_number = int(runs[0].claim.due_at.timestamp()) // intervals[0]
        self.is_fallback = any(run.tried for run in runs)
        for run in runs:
            run.tried.append(provider)
            # What the budget of the provider before has left out.
            run.over_budget = []
        following = {run.claim.run_id: next_provider(run.claim.job, tried=run.tried) for run in runs}
        asking = [run.claim.run_id for run in runs]
        self._load_history = partial(_load_sent_times, asking=asking)
        self._over_budget_because: dict[UUID, str] = {}
        # Why symbols were not asked for. It is no fault of the provider, so no other one is asked for them.
        self._held_up_by: dict[str, str] = {}
        self._next = {run_id: name for run_id, name in following.items() if name is not None}

    def apply_allowance(self) -> None:
        """Note for each new run what the provider's budget leaves out this time."""
        allowance, used = self._allowance()
        for run in self.merged.runs:
            if self.is_fallback:
                # It is in no plan: it takes what the jobs of this provider leave.
                granted, because = set(run.waiting if not allowance.turns else ()), FULLY_USED
            else:
                granted = set(allowance.symbols_at(run.claim.job, run.claim.due_at, used=used))
                because = allowance.over_budget_reason(run.claim.job)
            run.over_budget = [symbol for symbol in run.waiting if symbol not in granted]
            self._over_budget_because[run.claim.run_id] = because

    def share_recent(self, symbols: Sequence[str]) -> None:
        """Serve what others asked for a moment ago, or since the run was claimed."""
        now = database_now()
        claimed_s_ago = time.monotonic() - self._claimed_at
        since = now - timedelta(seconds=max(claimed_s_ago, SHARED_UP_TO_S))
        for symbol, received_at in received_since(self.provider, symbols, since=since).items():
            self.merged.share(symbol, age_s=(now - received_at).total_seconds())

    def ask(self) -> None:
        """Ask for what is left, and wait for what others ask for."""
        while self.merged.symbols and time.monotonic() < self._deadline:
            asked = self._ask_once()
            for symbol, error in asked.errors.items():
                if symbol not in asked.in_flight_elsewhere:
                    self.fail([symbol], str(error))
            if asked.refused is not None:
                left = [symbol for symbol in self.merged.symbols if symbol not in asked.in_flight_elsewhere]
                self.fail(left, asked.refused.reason)
            if not asked.in_flight_elsewhere or not self._share_in_flight(asked.in_flight_elsewhere):
                return

    def fail(self, symbols: Iterable[str], reason: str) -> None:
        """Resolve the symbols without a price here, as far as they still wait."""
        for symbol in list(symbols):
            self.merged.fail(symbol, reason, has_next=set(self._next))

    def end(self) -> None:
        """Write what became of the runs that are left; those that go on elsewhere stay claimed."""
        # The next provider's worker takes no run over whose time to ask has run out.
        is_over = time.monotonic() >= self._deadline
        for run in self.merged.runs:
            because = self._over_budget_because.get(run.claim.run_id, "")
            self.merged.give_back(run, run.over_budget, because, has_next=set(self._next))
            for symbol in list(run.waiting):
                because = self._held_up_by.get(symbol, "time ran out")
                resolve_without_price(run, [symbol], f"not asked: {because}")
            if is_over:
                run.resolve_deferred()
        resolved = self.merged.take_resolved()
        retry_database(lambda: finish([run.outcome for run in resolved]))
        self._note(resolved)
        for run in self.merged.runs:
            self.polled.go_on.setdefault(self._next[run.claim.run_id], []).append(run)

    def _allowance(self) -> tuple[Allowance, int]:
        """Return how the budget is shared, and how many of its requests are used where that matters."""
        now = database_now()
        allowance = allowance_of(self.provider, now=now)
        jobs = [run.claim.job for run in self.merged.runs]
        if any(key_of(job) not in allowance.demands for job in jobs):
            allowance = read_allowance(self.provider, now=now)
        is_first = any(job.last_run_at is None for job in jobs)
        return allowance, requests_used(self.provider, allowance.limit) if is_first and allowance.limit else 0

    def _ask_once(self) -> FetchResult:
        return ask_provider(
            get_provider(self.provider),
            # Whoever answers at once for all has no last symbol.
            rotate(self.merged.symbols, slot=self._slot_number if is_metered(self.provider) else 0),
            caller="latest" if self.is_fallback else "job",
            load_history=self._load_history,
            still_wanted=self._still_wanted,
            on_answer=self._keep,
            deadline=self._deadline,
            patience_s=self._patience_s,
        )

    def _still_wanted(self, symbols: Sequence[str]) -> Sequence[str]:
        try:
            if is_metered(self.provider):
                self.share_recent(symbols)
            active = active_jobs([run.claim.job.id for run in self.merged.runs])
        except (OperationalError, InterfaceError) as error:
            # Nobody can say, so this request is not sent.
            connection.close()
            trouble = database_trouble(error) or DatabaseTrouble.UNREACHABLE
            self._held_up_by |= dict.fromkeys(symbols, f"PostgreSQL {trouble}")
            return ()
        wanted = self.merged.still_wanted(symbols, active=active)
        for symbol in wanted:
            self._held_up_by.pop(symbol, None)
        return wanted

    def _keep(self, round_trip: RoundTrip) -> list[str]:
        self.merged.note_asked(round_trip.request.symbols)
        requesters = (self.merged.requester_of(symbol) for symbol in round_trip.request.symbols)
        run_id = next((run.claim.run_id for run in requesters if run is not None), None)
        (raw_id,) = retry_database(lambda: new_ids(1))
        keeping = _Keeping(self, round_trip, raw_id=raw_id, run_id=run_id)
        stored = retry_database(keeping)
        self._note(keeping.resolved)
        if stored.points:
            add_points(stored.points)
            publisher().publish(stored.points, polls={raw_id: run_id})
        return retry_database(lambda: without_recent_price(self.provider, unknown_symbols(round_trip)))

    def _share_in_flight(self, symbols: Sequence[str]) -> bool:
        """Wait for those who ask for the symbols, and share their prices; return False without Redis.

        One that was killed holds them for some seconds, and then they are asked for here.
        """
        try:
            Lease(self.provider).wait_for_others(symbols, deadline=self._deadline)
        except SharedStateError as error:
            self.fail(symbols, f"budget unavailable: {error}")
            return False
        self._held_up_by |= dict.fromkeys(symbols, "another process's request for it has not ended")
        retry_database(partial(self.share_recent, symbols))
        return True

    def _note(self, resolved: Sequence[PendingRun]) -> None:
        outcomes = [run.outcome for run in resolved]
        self.polled.states |= {outcome.claim.job.id: outcome.state for outcome in outcomes}
        failed = [outcome for outcome in outcomes if outcome.error]
        if failed:
            log.warning(
                "poll.failed" if all(not outcome.points for outcome in failed) else "poll.partly_failed",
                provider=self.provider,
                jobs=[str(outcome.claim.job.id) for outcome in failed[:10]],
                job_count=len(failed),
                reason=failed[0].error[:200],
            )


def _load_sent_times(provider: str, seconds: float, *, asking: Sequence[UUID]) -> SentTimes:
    return retry_database(lambda: load_sent_times(provider, seconds, asking=asking))


class _Keeping:
    """Stores a round trip and the outcomes of the runs that it resolves; called again, it doubles nothing."""

    def __init__(self, poll: _Poll, round_trip: RoundTrip, *, raw_id: UUID, run_id: UUID | None) -> None:
        self._poll = poll
        self._round_trip = round_trip
        self._raw_id = raw_id
        self._run_id = run_id
        self._is_resolved = False
        self.resolved: list[PendingRun] = []

    def __call__(self) -> Stored:
        with transaction.atomic():
            stored = store_round_trips(
                [self._round_trip],
                raw_ids=[self._raw_id],
                provider=self._poll.provider,
                poll=self._run_id,
                is_fallback=self._poll.is_fallback,
            )
            self._resolve(stored)
            finish([run.outcome for run in self.resolved])
        return stored

    def _resolve(self, stored: Stored) -> None:
        if self._is_resolved:
            return
        self._is_resolved = True
        for point in stored.points:
            self._poll.merged.serve(point.symbol)
        self._poll.fail(stored.refused, "the database cannot hold this price")
        self.resolved = self._poll.merged.take_resolved()
