"""One request to a provider, and what came of it."""

import time
from dataclasses import dataclass
from datetime import datetime

from django.utils import timezone

from providers.base import ErrorKind, Provider, ProviderError, RawAnswer, Request, Results


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """One request that was sent, and what came of it; `answer` is None where none came."""

    request: Request
    answer: RawAnswer | None
    results: Results
    received_at: datetime
    latency_ms: float


def send_request(provider: Provider, request: Request) -> RoundTrip:
    """Send one request and read its answer; where none comes, each symbol's result is the error."""
    started = time.monotonic()
    try:
        answer = provider.fetch(request)
    except ProviderError as error:
        return RoundTrip(
            request=request,
            answer=None,
            results=dict.fromkeys(request.symbols, error),
            received_at=timezone.now(),
            latency_ms=(time.monotonic() - started) * 1000,
        )
    return RoundTrip(
        request=request,
        answer=answer,
        results=provider.parse(answer),
        received_at=answer.received_at,
        latency_ms=answer.latency_ms,
    )


def errors_in(results: Results) -> dict[str, ProviderError]:
    """Return the errors among results, by symbol."""
    return {symbol: result for symbol, result in results.items() if isinstance(result, ProviderError)}


def unknown_symbols(round_trip: RoundTrip) -> list[str]:
    """Return the symbols that the provider did not know."""
    errors = errors_in(round_trip.results)
    return [symbol for symbol, error in errors.items() if error.kind == ErrorKind.UNKNOWN_SYMBOL]
