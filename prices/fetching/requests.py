"""Asking a provider: its requests one after the other, each answer read, and kept.

Before each request stand three questions: does nobody else ask for the same just now
(providers/rate_limits/symbol_leases.py), is it still wanted, and may it be sent
(providers/rate_limits/permits.py). Each answer is stored before the next request goes out: a process that
dies loses at most the answer that it waits for.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from prices.fetching.budget_history import load_sent_times
from prices.fetching.exchange import RoundTrip, errors_in, send_request
from providers.adapters.yahoo.batches import asks_singly
from providers.base import (
    ErrorKind,
    Provider,
    ProviderError,
    Request,
    Results,
    refuses_this_request,
    unknown_symbol,
)
from providers.rate_limits.budget import DAY_S, LoadHistory, limits_of
from providers.rate_limits.outgoing import NotSentError, Outgoing, sending
from providers.rate_limits.permits import Caller, Refusal, Refused, is_metered, report_outcome, request_permit
from providers.rate_limits.redis_scripts import SharedStateError
from providers.rate_limits.symbol_leases import Lease, Leased

# A refusal by the budget that ends so soon is waited for; a longer one ends the poll.
WORTH_WAITING_S = 2.0
# How long a poll waits for a provider that does not work: a cool-down and an answer; and how often it looks.
WAIT_FOR_PROBE_S = 4.5
PROBE_S = 0.25
# How many polls of a process wait for such a provider, and for room in a budget: other threads serve others.
PROBE_WAITS = 6
BUDGET_WAITS = 4
RETRIES = 2
RETRY_AFTER_S = 0.5
# After one of these the provider would only refuse the next request too.
_ENDS_THE_POLL = frozenset({ErrorKind.RATE_LIMITED, ErrorKind.INVALID_KEY})

_probe_waits = threading.BoundedSemaphore(PROBE_WAITS)
_budget_waits = threading.BoundedSemaphore(BUDGET_WAITS)

# Of some symbols: those that are still to be asked for. Called just before each request.
StillWanted = Callable[[Sequence[str]], Sequence[str]]
# Stores a round trip; of the symbols that the provider did not know, gives those to remember as unknown.
OnAnswer = Callable[[RoundTrip], Iterable[str]]


@dataclass(slots=True)
class FetchResult:
    """The last word on each symbol that was asked for.

    `in_flight_elsewhere`: symbols that another process or thread asks for just now. `refused` tells why no
    further request was sent, where the breaker or the budget said so. `sent` counts the requests.
    """

    results: Results = field(default_factory=dict)
    in_flight_elsewhere: list[str] = field(default_factory=list)
    refused: Refused | None = None
    sent: int = 0

    @property
    def errors(self) -> dict[str, ProviderError]:
        """Return the errors among the results, by symbol."""
        return errors_in(self.results)


def ask_provider(
    provider: Provider,
    symbols: Sequence[str],
    *,
    caller: Caller,
    still_wanted: StillWanted,
    on_answer: OnAnswer,
    deadline: float,
    patience_s: float = 0.0,
    load_history: LoadHistory = load_sent_times,
) -> FetchResult:
    """Send the provider's requests for the symbols; return the last result of each, and what was not sent.

    No request begins after `deadline`, by the monotonic clock. For room in the budget a request waits up to
    `patience_s`, and for a limit by the second in any case; what takes longer ends the poll. A request that
    failed in a way that may pass (upstream_error but for HTTP 4xx, a time-out) is sent again after 0.25 to
    0.5 s, and once more after 0.5 to 1 s; of a budget by the day only once. A provider that limits the rate
    or refuses the key ends the poll: the symbols that are left get the same error. `load_history` tells what
    was sent before, where Redis has lost its counts.

    Never raises a ProviderError; raises what `on_answer`, `still_wanted` and `load_history` raise.
    """
    asking = _Asking(
        provider,
        caller,
        still_wanted,
        on_answer,
        deadline=deadline,
        patience_s=patience_s,
        load_history=load_history,
    )
    try:
        asking.run(provider.plan(symbols, singly=asks_singly(provider.name)))
    except SharedStateError as error:
        asking.asked.refused = Refused(Refusal.UNAVAILABLE, f"budget unavailable: {error}")
    return asking.asked


@dataclass(frozen=True, slots=True)
class _PendingRequest:
    request: Request
    retries_left: int


class _Asking:
    def __init__(
        self,
        provider: Provider,
        caller: Caller,
        still_wanted: StillWanted,
        on_answer: OnAnswer,
        *,
        deadline: float,
        patience_s: float,
        load_history: LoadHistory,
    ) -> None:
        self.asked = FetchResult()
        self._provider = provider
        self._caller = caller
        self._still_wanted = still_wanted
        self._on_answer = on_answer
        self._load_history = load_history
        self._deadline = deadline
        self._patience_deadline = min(deadline, time.monotonic() + patience_s)
        self._lease = Lease(provider.name) if is_metered(provider.name) else None
        self._waiting: deque[_PendingRequest] = deque()
        self._broken_until: float | None = None

    def run(self, requests: Iterable[Request]) -> None:
        retries = _retries(self._provider.name)
        self._waiting.extend(_PendingRequest(request, retries) for request in requests)
        while self._waiting and time.monotonic() < self._deadline and self.asked.refused is None:
            pending = self._waiting.popleft()
            request = self._cleared(pending.request)
            if request is not None:
                self._send(replace(pending, request=request))
        if self.asked.refused is not None:
            self._look_who_asks()

    def _look_who_asks(self) -> None:
        # What is not to be asked for may be on its way to somebody else.
        for pending in self._waiting:
            if self._lease is not None:
                self._release(self._note(self._lease.take(pending.request.symbols)))

    def _cleared(self, request: Request) -> Request | None:
        symbols = request.symbols
        if self._lease is not None:
            symbols = self._note(self._lease.take(symbols))
        # Only now: what others asked for until a moment ago is stored, and need not be asked for again.
        wanted = tuple(self._still_wanted(symbols)) if symbols else ()
        if len(wanted) < len(symbols):
            self._release([symbol for symbol in symbols if symbol not in wanted])
        return replace(request, symbols=wanted) if wanted else None

    def _note(self, leased: Leased) -> tuple[str, ...]:
        self.asked.in_flight_elsewhere += leased.in_flight_elsewhere
        self.asked.results.update(dict.fromkeys(leased.unknown, unknown_symbol()))
        return leased.ours

    def _send(self, pending: _PendingRequest) -> None:
        looked_at = time.monotonic()
        # Where Redis has lost its counts, this may wait for PostgreSQL.
        permit = request_permit(self._provider.name, caller=self._caller, load_history=self._load_history)
        if isinstance(permit, Refused):
            self._wait_or_give_up(pending, permit)
            return
        outgoing = Outgoing(
            permit, is_wanted=lambda: self._may_begin(pending.request.symbols), looked_at=looked_at
        )
        try:
            with sending(outgoing):
                round_trip = send_request(self._provider, pending.request)
        except NotSentError as error:
            outgoing.cancel()
            if error.refused is not None:
                self._wait_or_give_up(pending, error.refused)
            else:
                self._release(pending.request.symbols)
            return
        self.asked.sent += 1
        self.asked.results.update(round_trip.results)
        more = self._provider.fallback(round_trip.answer) if round_trip.answer else []
        report_outcome(
            permit,
            round_trip.results,
            answer=round_trip.answer,
            entry=outgoing.entry,
            is_superseded=bool(more),
        )
        self._release(pending.request.symbols, list(self._on_answer(round_trip)))
        self._waiting.extend(_PendingRequest(request, pending.retries_left) for request in more)
        self._go_on_after(pending, round_trip, is_superseded=bool(more))

    def _may_begin(self, symbols: Sequence[str]) -> bool:
        return time.monotonic() < self._deadline and bool(self._still_wanted(symbols))

    def _wait_or_give_up(self, pending: _PendingRequest, refused: Refused) -> None:
        self._release(pending.request.symbols)
        if refused.refusal == Refusal.BROKEN:
            is_over = self._wait_for_probe(refused)
        else:
            is_over = refused.refusal == Refusal.BUDGET and self._wait_for_budget(refused.retry_after_s or 0)
        if is_over:
            self._waiting.appendleft(pending)
            return
        self.asked.refused = refused

    def _wait_for_budget(self, wait_s: float) -> bool:
        if wait_s <= WORTH_WAITING_S:
            return self._sleep(wait_s)
        # A plan that fits the budget may still want more at once than a window holds.
        if time.monotonic() + wait_s >= self._patience_deadline or not _budget_waits.acquire(blocking=False):
            return False
        try:
            return self._sleep(wait_s)
        finally:
            _budget_waits.release()

    def _wait_for_probe(self, refused: Refused) -> bool:
        # A poll waits for a cool-down, or for the probe of another one, so that a provider that is back is
        # polled in this slot and not in the next. Callers of GET latest have no time for that.
        now = time.monotonic()
        self._broken_until = self._broken_until or now + WAIT_FOR_PROBE_S
        if self._caller != "job" or now >= self._broken_until or not _probe_waits.acquire(blocking=False):
            return False
        try:
            return self._sleep(min(refused.retry_after_s or PROBE_S, PROBE_S))
        finally:
            _probe_waits.release()

    def _go_on_after(self, pending: _PendingRequest, round_trip: RoundTrip, *, is_superseded: bool) -> None:
        final = _final_error(round_trip)
        if final is not None and not is_superseded:
            self._refuse_the_rest(final)
        elif _may_pass(round_trip) and not is_superseded and pending.retries_left:
            self._retry(pending)

    def _retry(self, pending: _PendingRequest) -> None:
        delay_s = RETRY_AFTER_S * 2 ** (RETRIES - pending.retries_left) * random.uniform(0.5, 1.0)  # noqa: S311
        if self._sleep(delay_s):
            self._waiting.appendleft(replace(pending, retries_left=pending.retries_left - 1))

    def _refuse_the_rest(self, error: ProviderError) -> None:
        for pending in self._waiting:
            for symbol in pending.request.symbols:
                self.asked.results.setdefault(symbol, error)
        self._waiting.clear()

    def _sleep(self, seconds: float) -> bool:
        """Sleep if there is time left after it; return whether there is."""
        if time.monotonic() + seconds >= self._deadline:
            return False
        time.sleep(seconds)
        return True

    def _release(self, symbols: Sequence[str], unknown: Sequence[str] = ()) -> None:
        if self._lease is not None:
            self._lease.release(symbols, unknown=unknown)


def _retries(provider: str) -> int:
    # A request of a budget by the day is dear: what one retry does not cure, the next slot may.
    by_the_day = is_metered(provider) and any(limit.window_s >= DAY_S for limit in limits_of(provider))
    return 1 if by_the_day else RETRIES


def _final_error(round_trip: RoundTrip) -> ProviderError | None:
    errors = errors_in(round_trip.results).values()
    return next((error for error in errors if error.kind in _ENDS_THE_POLL), None)


def _may_pass(round_trip: RoundTrip) -> bool:
    errors = errors_in(round_trip.results).values()
    if len(errors) < len(round_trip.results) or refuses_this_request(round_trip.answer):
        return False
    return all(error.kind == ErrorKind.UPSTREAM_ERROR for error in errors)
