"""Of several failures the one that tells most."""

from itertools import permutations

import pytest

from prices.latest.errors import (
    Failure,
    FetchError,
    LatestTimeoutError,
    NoPriceError,
    RequestRefusedError,
    TooManyFetchesError,
)
from providers.base import ErrorKind, ProviderError, ProviderTimeoutError
from providers.rate_limits.permits import Refusal, Refused


def error_of(kind: str, retry_after_s: float | None = None) -> FetchError:
    """Return an error of the kind, as the attempts name it."""
    if kind == "timeout":
        return LatestTimeoutError("finnhub")
    if kind == "too_many_fetches":
        return TooManyFetchesError("all places are taken")
    if kind in set(Refusal):
        return RequestRefusedError(Refused(Refusal(kind), "budget: it is used", retry_after_s))
    return ProviderError(kind=ErrorKind(kind), message="a failure", retry_after=retry_after_s)


def telling(*kinds: str) -> str:
    failures = [Failure(f"provider {place}", error_of(kind)) for place, kind in enumerate(kinds)]
    return NoPriceError(failures).cause.kind


ALL_KINDS = [*map(str, ErrorKind), *map(str, Refusal), "timeout", "too_many_fetches"]


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_failure_alone_is_the_telling_one(kind: str) -> None:
    assert telling(kind) == kind


def test_provider_that_gives_no_answer_in_its_time_is_a_timeout() -> None:
    error = ProviderTimeoutError(kind=ErrorKind.UPSTREAM_ERROR, message="no answer within 10 s")
    assert (Failure("finnhub", error).kind, Failure("finnhub", error).message) == (
        "timeout",
        "no answer within 10 s",
    )


@pytest.mark.parametrize("other", [kind for kind in ALL_KINDS if kind != "unknown_symbol"])
def test_symbol_is_unknown_only_if_all_who_were_asked_say_so(other: str) -> None:
    is_out_of_budget = other in {"budget", "latest_share", "held"}
    expected = "unknown_symbol" if is_out_of_budget else other
    assert telling("unknown_symbol", other) == telling(other, "unknown_symbol") == expected


@pytest.mark.parametrize(
    "kinds",
    [
        ("too_many_fetches", "timeout", "broken"),
        ("timeout", "broken", "upstream_error"),
        ("settling", "malformed", "rate_limited"),
        ("unavailable", "malformed", "budget"),
        ("upstream_error", "held", "not_entitled"),
        ("rate_limited", "invalid_key", "unknown_symbol"),
        ("latest_share", "not_entitled", "unknown_symbol"),
    ],
)
def test_telling_failure_is_the_first_of_the_order_wherever_it_stands(kinds: tuple[str, ...]) -> None:
    assert {telling(*order) for order in permutations(kinds)} == {kinds[0]}


def test_of_failures_of_the_same_line_the_shorter_wait_tells_more() -> None:
    failures = [
        Failure("alpha_vantage", error_of("latest_share", 80_000)),
        Failure("finnhub", error_of("rate_limited")),
        Failure("yfinance", error_of("budget", 12)),
    ]
    assert NoPriceError(failures).cause.provider == "yfinance"


def test_of_equal_failures_the_provider_asked_first_tells() -> None:
    failures = [Failure(name, error_of("timeout")) for name in ("yfinance", "finnhub")]
    assert NoPriceError(failures).cause.provider == "yfinance"
