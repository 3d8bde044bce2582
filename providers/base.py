"""What every provider speaks: requests, raw answers, quotes, and errors of six kinds.

ProviderError           an answer that is no quote, or no answer at all; `kind` says which of six
 └ ProviderTimeoutError no answer within the deadline; its kind is upstream_error
NotConfiguredError      the provider has no key; names the setting that is missing
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Context, Decimal
from enum import StrEnum
from typing import Any, Literal, Protocol

Precision = Literal["second", "day", "unknown"]

MAX_INTEGER_DIGITS = 12
# Coins have prices such as 0.0000000123456789.
MAX_DECIMALS = 16


class ErrorKind(StrEnum):
    """Why there is no quote. Nothing else is ever given as a reason."""

    UNKNOWN_SYMBOL = "unknown_symbol"
    RATE_LIMITED = "rate_limited"
    INVALID_KEY = "invalid_key"
    NOT_ENTITLED = "not_entitled"
    UPSTREAM_ERROR = "upstream_error"
    MALFORMED = "malformed"


class ProviderError(Exception):
    """No quote, and why.

    `message` is made here and never holds text of the provider (which may repeat the key).
    `retry_after` is in seconds from `received_at`; None where the provider does not tell.
    """

    def __init__(self, *, kind: ErrorKind, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.retry_after = retry_after

    # Exception's own way to pickle knows no keyword arguments; Celery pickles what a task raises.
    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.kind, self.message, self.retry_after))


class ProviderTimeoutError(ProviderError):
    """No answer within the deadline; its kind is upstream_error."""


class NotConfiguredError(Exception):
    """The provider cannot be asked before `variable` (the name of a setting) has a value."""

    def __init__(self, *, provider: str, variable: str) -> None:
        super().__init__(f"{provider} is not configured: set {variable}")
        self.provider = provider
        self.variable = variable

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild_not_configured, (self.provider, self.variable))


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request to come: the provider's name of the call, and the symbols it asks for."""

    call: str
    symbols: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """A provider's whole reply, without keys: in the url, the headers and the body.

    Header names are lower case. The url tells which call it was.
    """

    provider: str
    symbols: tuple[str, ...]
    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    received_at: datetime
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Quote:
    """The last price of a symbol, in the listing's own unit (`GBp`: pence).

    `observed_at` is the provider's clock in UTC, so up to 60 s ahead of `received_at`; None with
    precision "unknown". `currency` is None where the provider does not tell.
    """

    symbol: str
    price: Decimal
    observed_at: datetime | None
    precision: Precision
    currency: str | None


Results = dict[str, Quote | ProviderError]


class Provider(Protocol):
    """One price provider. An adapter keeps no state between calls."""

    name: str

    def plan(self, symbols: Sequence[str], *, singly: bool = False) -> list[Request]:
        """Return the requests that answer all symbols; each one is one unit of budget.

        `singly`: calls for several symbols are refused just now (providers/adapters/yahoo/batches.py).
        """

    def fetch(self, request: Request) -> RawAnswer:
        """Send one request and wait for its answer, at most PROVIDER_TIMEOUT_S seconds.

        Raises ProviderError where there is no answer, NotConfiguredError where there is no key.
        """

    def parse(self, answer: RawAnswer) -> Results:
        """Read an answer: one entry for each of its symbols. Pure; never raises, whatever the bytes."""

    def fallback(self, answer: RawAnswer) -> list[Request]:
        """Return the requests to send in place of a call that was refused: none, but for Yahoo. Pure."""
        return []


# No white space, underscore, NaN or digit of another alphabet: Decimal() would take them all.
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,6})?")
_EXACT = Context(prec=MAX_INTEGER_DIGITS + MAX_DECIMALS, traps=[])


def to_price(value: str | Decimal) -> Decimal:
    """Return the price with the provider's digits, without trailing zeros and without an exponent.

    Above 0, below 10^12, at most 16 decimals; anything else raises ProviderError (malformed).
    """
    number = _to_decimal(value) if isinstance(value, str) else value
    if not number.is_finite() or number <= 0:
        raise malformed("the price is not a number above 0")
    # Looked at before the digits: written out, 1E+1000000 would be a megabyte of zeros.
    if not -MAX_DECIMALS <= number.adjusted() < MAX_INTEGER_DIGITS:
        raise malformed("the price is not between 10^-16 and 10^12")
    price = number.normalize(_EXACT)
    exponent = int(price.as_tuple().exponent)
    if price != number or exponent < -MAX_DECIMALS:
        raise malformed("the price has more than 16 decimals")
    return price.quantize(Decimal(1), context=_EXACT) if exponent > 0 else price


# A key, a firewall, a time-out, a limit: of all requests, or for a while.
_NOT_OF_ONE_REQUEST = frozenset({401, 403, 408, 425, 429})


def refuses_this_request(answer: RawAnswer | None) -> bool:
    """Say whether a provider that works takes this one request for wrong (HTTP 4xx), and always will."""
    return answer is not None and 400 <= answer.status < 500 and answer.status not in _NOT_OF_ONE_REQUEST


def malformed(message: str) -> ProviderError:
    """Return the error of an answer that came with 200 and cannot be read."""
    return ProviderError(kind=ErrorKind.MALFORMED, message=message)


def upstream_error(message: str) -> ProviderError:
    """Return the error of a provider that does not work just now."""
    return ProviderError(kind=ErrorKind.UPSTREAM_ERROR, message=message)


def unknown_symbol() -> ProviderError:
    """Return the error of a symbol that the provider does not know, or knows no price of any more."""
    return ProviderError(kind=ErrorKind.UNKNOWN_SYMBOL, message="the provider does not know the symbol")


def _to_decimal(text: str) -> Decimal:
    if _NUMBER.fullmatch(text) is None:
        raise malformed("the price is not a number")
    return Decimal(text)


def _rebuild(
    error: type[ProviderError], kind: ErrorKind, message: str, retry_after: float | None
) -> ProviderError:
    return error(kind=kind, message=message, retry_after=retry_after)


def _rebuild_not_configured(provider: str, variable: str) -> NotConfiguredError:
    return NotConfiguredError(provider=provider, variable=variable)
