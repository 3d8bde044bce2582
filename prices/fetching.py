"""Asking a provider: its requests one after the other, each answer read and kept as an attempt."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.utils import timezone

from prices.sent_times import load_sent_times
from providers.base import ErrorKind, Provider, ProviderError, RawAnswer, Request, Results
from providers.permits import Caller, Refusal, Refused, report_outcome, request_permit

# A limit of a window this long is a pace: its poll waits, and goes on.
PACE_S = 1.0
# After one of these the provider would only refuse the next request too.
_ENDS_THE_POLL = frozenset({ErrorKind.RATE_LIMITED, ErrorKind.INVALID_KEY})


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request that was sent, and what came of it; `answer` is None where none came."""

    request: Request
    answer: RawAnswer | None
    results: Results
    received_at: datetime
    latency_ms: float


@dataclass(slots=True)
class Asked:
    """All requests of one poll, and the last word on each symbol.

    `refused` tells why no further request was sent, where the breaker or the budget said so.
    """

    attempts: list[Attempt] = field(default_factory=list)
    refused: Refused | None = None
    results: Results = field(default_factory=dict)

    @property
    def errors(self) -> dict[str, ProviderError]:
        """Give the errors among the results, by symbol."""
        return {
            symbol: result for symbol, result in self.results.items() if isinstance(result, ProviderError)
        }


def ask_provider(
    provider: Provider, symbols: Sequence[str], *, caller: Caller, may_ask: Callable[[], bool]
) -> Asked:
    """Send the provider's requests for the symbols until all are answered.

    `may_ask` is asked before each request, and so are the provider's breaker and budget; once one
    says no, nothing more is sent and the symbols that are left have no result. A provider that
    limits the rate or refuses the key ends the poll: the symbols that are left get the same error.
    Never raises a ProviderError.
    """
    asked = Asked()
    waiting = deque(provider.plan(symbols))
    while waiting and may_ask():
        permit = request_permit(provider.name, caller=caller, load_history=load_sent_times)
        if isinstance(permit, Refused):
            if _is_worth_waiting_for(permit):
                time.sleep(permit.retry_after_s or 0)
                continue
            asked.refused = permit
            break
        attempt = _attempt(provider, waiting.popleft())
        asked.attempts.append(attempt)
        asked.results.update(attempt.results)
        more = provider.fallback(attempt.answer) if attempt.answer else []
        report_outcome(permit, attempt.results, answer=attempt.answer, is_replaced=bool(more))
        waiting.extend(more)
        final = _final_error(attempt)
        if final is not None and not _is_retried(attempt, waiting):
            _refuse_the_rest(asked, waiting, final)
            break
    return asked


def _is_worth_waiting_for(refused: Refused) -> bool:
    pace = refused.refusal == Refusal.BUDGET and refused.window_s is not None and refused.window_s <= PACE_S
    return pace and (refused.retry_after_s or 0) <= 2 * PACE_S


def _attempt(provider: Provider, request: Request) -> Attempt:
    started = time.monotonic()
    try:
        answer = provider.fetch(request)
    except ProviderError as error:
        return Attempt(
            request=request,
            answer=None,
            results=dict.fromkeys(request.symbols, error),
            received_at=timezone.now(),
            latency_ms=(time.monotonic() - started) * 1000,
        )
    return Attempt(
        request=request,
        answer=answer,
        results=provider.parse(answer),
        received_at=answer.received_at,
        latency_ms=answer.latency_ms,
    )


def _final_error(attempt: Attempt) -> ProviderError | None:
    errors = [result for result in attempt.results.values() if isinstance(result, ProviderError)]
    return next((error for error in errors if error.kind in _ENDS_THE_POLL), None)


def _is_retried(attempt: Attempt, waiting: deque[Request]) -> bool:
    # A refused batch call (Yahoo's crumb) may be answered by the calls that take its place.
    return any(request.call != attempt.request.call for request in waiting)


def _refuse_the_rest(asked: Asked, waiting: deque[Request], error: ProviderError) -> None:
    for request in waiting:
        for symbol in request.symbols:
            asked.results.setdefault(symbol, error)
