"""What came a short while ago."""

from datetime import UTC, datetime, timedelta

import pytest
from pytest_django import Settings

from prices.fetching.recent import last_error
from prices.models import Outcome, RawMarketData
from providers.base import ErrorKind, ProviderTimeoutError

pytestmark = pytest.mark.django_db
NOW = datetime.now(UTC)


def add_answer(
    outcome: Outcome,
    *symbols: str,
    provider: str = "yfinance",
    message: str = "in words",
    received_s_ago: float = 1,
) -> None:
    RawMarketData.objects.create(
        provider=provider,
        symbols=list(symbols),
        outcome=outcome,
        message=message,
        received_at=NOW - timedelta(seconds=received_s_ago),
        latency_ms=1,
    )


def found() -> ErrorKind | None:
    error = last_error("yfinance", "AAPL", since=NOW - timedelta(seconds=5))
    if error is None:
        return None
    assert error.message == "in words"
    return error.kind


def test_failure_of_a_symbol_alone_is_its_last_error() -> None:
    add_answer(Outcome.QUOTE, "AAPL", received_s_ago=2)
    add_answer(Outcome.UPSTREAM_ERROR, "AAPL")
    assert found() == ErrorKind.UPSTREAM_ERROR


def test_failure_of_several_symbols_is_nobodys_error() -> None:
    add_answer(Outcome.MALFORMED, "AAPL", "MSFT")
    assert found() is None
    add_answer(Outcome.RATE_LIMITED, "AAPL")
    add_answer(Outcome.MALFORMED, "AAPL", "MSFT")
    assert found() == ErrorKind.RATE_LIMITED


def test_time_out_stays_one(settings: Settings) -> None:
    settings.PROVIDER_TIMEOUT_S = 2
    add_answer(Outcome.UPSTREAM_ERROR, "AAPL", message="no answer within 2 s")
    error = last_error("yfinance", "AAPL", since=NOW - timedelta(seconds=5))
    assert isinstance(error, ProviderTimeoutError)
    assert (error.kind, error.message) == (ErrorKind.UPSTREAM_ERROR, "no answer within 2 s")


def test_last_answer_that_was_a_quote_is_no_error() -> None:
    add_answer(Outcome.UPSTREAM_ERROR, "AAPL", received_s_ago=2)
    add_answer(Outcome.QUOTE, "AAPL")
    assert found() is None


def test_failures_of_another_time_symbol_or_provider_are_not_told() -> None:
    add_answer(Outcome.UPSTREAM_ERROR, "AAPL", received_s_ago=6)
    add_answer(Outcome.UPSTREAM_ERROR, "MSFT")
    add_answer(Outcome.UPSTREAM_ERROR, "AAPL", provider="finnhub")
    assert found() is None
