"""Why GET /prices/latest has no price to give.

ProviderError (providers/base.py)  the provider was asked and gave no quote
LatestTimeoutError                 it did not answer in time
RequestRefusedError                it was not asked: its budget is used up, or its breaker is open
TooManyFetchesError                it was not asked: too many wait already
OldPriceError                      it gave a price, older than the caller takes
NoPriceError                       the named provider, or each of those that could be asked, failed so
TooOldError                        the best price that there is is older than the caller takes
NothingStoredError                 nobody was to be asked, and there is no price
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from providers.base import ErrorKind, NotConfiguredError, ProviderError, ProviderTimeoutError
from providers.rate_limits.permits import Refusal, Refused

BUDGET_REFUSALS = frozenset({Refusal.BUDGET, Refusal.LATEST_SHARE, Refusal.HELD})

_TIMEOUT = "timeout"
_TOO_MANY = "too_many_fetches"
_TOO_OLD = "too_old"
# What tells a caller most comes first: that trying again soon will help, then that it will help later,
# then that somebody has to change something. Within a line the shorter wait, then who is asked first.
_BY_WEIGHT: tuple[frozenset[str], ...] = (
    frozenset({_TOO_MANY}),
    frozenset({_TIMEOUT}),
    frozenset({Refusal.BROKEN, Refusal.SETTLING, Refusal.UNAVAILABLE}),
    frozenset({ErrorKind.UPSTREAM_ERROR, ErrorKind.MALFORMED}),
    frozenset({ErrorKind.RATE_LIMITED, *BUDGET_REFUSALS}),
    frozenset({ErrorKind.INVALID_KEY, ErrorKind.NOT_ENTITLED}),
    frozenset({ErrorKind.UNKNOWN_SYMBOL}),
    frozenset({_TOO_OLD}),
)


class LatestTimeoutError(TimeoutError):
    """The provider did not answer in time; what it answers later is stored all the same."""


class RequestRefusedError(RuntimeError):
    """The provider's budget is used up, or its breaker is open; `refused` says which, and until when."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.reason)
        self.refused = refused


class TooManyFetchesError(RuntimeError):
    """As many callers wait as may, or as many fetches from the provider run; the text says which."""


class OldPriceError(RuntimeError):
    """The provider's price is older than the caller takes; `age_s` is None where its age is not known."""

    def __init__(self, age_s: float | None) -> None:
        # Rounded up: never told as less than it is, nor as what the caller takes.
        age = "of unknown age" if age_s is None else f"{math.ceil(age_s)} s old"
        super().__init__(f"its price is {age}")
        self.age_s = age_s


FetchError = ProviderError | LatestTimeoutError | RequestRefusedError | TooManyFetchesError | OldPriceError
# What a fetch itself raises; anything else is a bug, or PostgreSQL is away.
FETCH_ERRORS = (ProviderError, LatestTimeoutError, RequestRefusedError, TooManyFetchesError)


@dataclass(frozen=True, slots=True)
class Failure:
    """A provider that gave no price, and why."""

    provider: str
    error: FetchError

    @property
    def kind(self) -> str:
        """One of the six kinds of a provider's errors, a refusal, timeout, too_many_fetches or too_old."""
        match self.error:
            case ProviderTimeoutError() | LatestTimeoutError():
                return _TIMEOUT
            case ProviderError():
                return str(self.error.kind)
            case RequestRefusedError():
                return str(self.error.refused.refusal)
            case TooManyFetchesError():
                return _TOO_MANY
            case OldPriceError():
                return _TOO_OLD

    @property
    def message(self) -> str:
        """The same for people, in words of this service."""
        return "no answer in time" if isinstance(self.error, LatestTimeoutError) else str(self.error)

    @property
    def retry_after_s(self) -> float:
        """Seconds until asking again makes sense; infinite where nobody tells."""
        wait: float | None = None
        match self.error:
            case ProviderError():
                wait = self.error.retry_after
            case RequestRefusedError():
                wait = self.error.refused.retry_after_s
        return math.inf if wait is None else wait

    @property
    def says_unknown(self) -> bool:
        """Whether the provider said that it does not know the symbol."""
        return self.kind == ErrorKind.UNKNOWN_SYMBOL

    @property
    def weight(self) -> tuple[int, float]:
        """The rank among failures: the lowest says most."""
        rank = next(rank for rank, kinds in enumerate(_BY_WEIGHT) if self.kind in kinds)
        return rank, self.retry_after_s


class NoPriceError(LookupError):
    """None of those that could be asked gave a price; `is_named`: the caller named the one that was asked."""

    def __init__(self, failures: Sequence[Failure], *, is_named: bool = False) -> None:
        super().__init__(", ".join(f"{failure.provider}: {failure.kind}" for failure in failures))
        self.failures = tuple(failures)
        self.is_named = is_named

    @property
    def cause(self) -> Failure:
        """The failure that tells most.

        That the symbol is unknown only if all who were asked say so, and the others were left out for
        their budgets alone: a provider that will work again in a moment may know it.
        """
        unknown = [failure for failure in self.failures if failure.says_unknown]
        others = [failure for failure in self.failures if not failure.says_unknown]
        if unknown and all(failure.kind in BUDGET_REFUSALS for failure in others):
            return unknown[0]
        return min(self.failures, key=lambda failure: failure.weight)


class NothingStoredError(LookupError):
    """There is no stored price of the last days, and nobody was to be asked for one."""


class TooOldError(LookupError):
    """The best price is older than the caller takes; `age_s` is None where its age is not known.

    `failures` tells why there is no younger one, where a provider was asked for it.
    """

    def __init__(self, age_s: float | None, failures: Sequence[Failure] = ()) -> None:
        super().__init__(age_s)
        self.age_s = age_s
        self.failures = tuple(failures)


LatestError = NotConfiguredError | NoPriceError | TooOldError | NothingStoredError
