"""Answers made by hand, for the tests of the adapters."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from providers.base import ErrorKind, ProviderError, Quote, RawAnswer
from providers.registry import get_provider

RECEIVED_AT = datetime(2026, 11, 20, 15, 30, tzinfo=UTC)


def make_answer(
    provider: str,
    symbols: tuple[str, ...],
    body: Any,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    url: str = "https://provider.example/",
    received_at: datetime = RECEIVED_AT,
) -> RawAnswer:
    """Return an answer; a body that is neither bytes nor text is sent as JSON."""
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    return RawAnswer(
        provider=provider,
        symbols=symbols,
        url=url,
        status=status,
        headers=headers or {},
        body=text.encode() if isinstance(text, str) else text,
        received_at=received_at,
        latency_ms=1.0,
    )


def parse_one(provider: str, symbol: str, body: Any, **answer: Any) -> Quote | ProviderError:
    """Return what the provider's adapter reads in an answer about one symbol."""
    (result,) = get_provider(provider).parse(make_answer(provider, (symbol,), body, **answer)).values()
    return result


def quote_of(result: Quote | ProviderError) -> Quote:
    """Return the quote; fails with the error's text where there is none."""
    assert isinstance(result, Quote), result
    return result


def price_of(result: Quote | ProviderError) -> Decimal:
    """Return the quote's price."""
    return quote_of(result).price


def error_of(result: Quote | ProviderError) -> ProviderError:
    """Return the error; fails where there is a quote."""
    assert isinstance(result, ProviderError), result
    return result


def kind_of(result: Quote | ProviderError) -> ErrorKind:
    """Return the error's kind."""
    return error_of(result).kind
