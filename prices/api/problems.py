"""Which error is which problem: its status, its name, and what is told of it."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

import structlog
from django.http import Http404
from rest_framework import exceptions

from prices.access.keys import InvalidKeyError
from prices.access.rights import MissingScopeError
from prices.api import responses as answers
from prices.api.access.authentication import KeyRequiredError
from prices.api.access.throttle import ThrottledError
from prices.api.fields import SYMBOLS_ALLOWED
from prices.database.errors import DatabaseTrouble, database_trouble
from prices.history.errors import (
    NoAverageError,
    RawAnswerGoneError,
    UnknownPriceError,
    UnknownRawAnswerError,
)
from prices.jobs.idempotency import KeyInUseError, KeyReusedError
from prices.jobs.services import (
    JobNotFoundError,
    JobNotStoppedError,
    JobStoppedError,
    UnservedSymbolsError,
)
from prices.latest.errors import (
    BUDGET_REFUSALS,
    LatestTimeoutError,
    NoPriceError,
    NothingStoredError,
    RequestRefusedError,
    TooManyFetchesError,
    TooOldError,
)
from prices.quota import BeyondBudgetError, StrictKeyError, budget_in_words, figure, shortest_in_words
from providers.base import ErrorKind, NotConfiguredError, ProviderError, ProviderTimeoutError
from providers.rate_limits.limits import in_words
from providers.rate_limits.permits import Refused
from providers.rate_limits.redis_scripts import SharedStateError

log = structlog.get_logger(__name__)

# So many faults of a request are told: an answer that tells all of thousands helps nobody.
MOST_FAULTS = 10
# Of RFC 6750: which scheme is understood.
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="marketdata"'}
# A name as the calls' own: one that a caller made up may be no part of a URI.
_FIELD_NAME = re.compile("[a-z_]+")

STATUS_OF_KIND: Mapping[ErrorKind, HTTPStatus] = {
    ErrorKind.UNKNOWN_SYMBOL: HTTPStatus.NOT_FOUND,
    ErrorKind.RATE_LIMITED: HTTPStatus.TOO_MANY_REQUESTS,
    ErrorKind.INVALID_KEY: HTTPStatus.BAD_GATEWAY,
    ErrorKind.NOT_ENTITLED: HTTPStatus.BAD_GATEWAY,
    ErrorKind.UPSTREAM_ERROR: HTTPStatus.BAD_GATEWAY,
    ErrorKind.MALFORMED: HTTPStatus.BAD_GATEWAY,
}


class InvalidRequestError(exceptions.APIException):
    """Input that cannot be used: for the first fields at fault, what is wrong and what is allowed."""

    status_code = HTTPStatus.BAD_REQUEST

    def __init__(self, errors: list[dict[str, str]]) -> None:
        super().__init__("The request cannot be used.")
        self.errors = errors[:MOST_FAULTS]


@dataclass(frozen=True, slots=True)
class Problem:
    """What an answer says of an error: `name` ends its type, `more` is told besides."""

    status: HTTPStatus
    name: str
    detail: str
    more: Mapping[str, Any] = field(default_factory=dict)
    retry_after_s: float | None = None
    more_headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def retry_after(self) -> int | None:
        """Return when to ask again, in whole seconds, one at least; None where no time is known."""
        return None if self.retry_after_s is None else max(1, math.ceil(self.retry_after_s))

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of the answer."""
        when = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return {**when, **self.more_headers}


def problem_for(error: Exception) -> Problem | None:
    """Return what to say of an error; None for one that is a bug."""
    if trouble := database_trouble(error):
        return _database_problem(trouble, error)
    readers = (
        _request_problem,
        _access_problem,
        _idempotency_problem,
        _job_problem,
        _stored_problem,
        _price_problem,
    )
    return next(filter(None, (read(error) for read in readers)), None)


def _request_problem(error: Exception) -> Problem | None:
    match error:
        case InvalidRequestError(errors=errors):
            name = _name_of_faults(errors)
            return Problem(HTTPStatus.BAD_REQUEST, name, _sentence(errors), {"errors": errors})
        case exceptions.ParseError():
            return Problem(HTTPStatus.BAD_REQUEST, "invalid-body", str(error.detail), _body_error(error))
        case exceptions.UnsupportedMediaType():
            detail = "Send the body as application/json."
            return Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail)
        case exceptions.MethodNotAllowed():
            return Problem(HTTPStatus.METHOD_NOT_ALLOWED, "method-not-allowed", str(error.detail))
        case Http404():
            return Problem(HTTPStatus.NOT_FOUND, "no-such-address", "There is nothing at this address.")
    return None


def _access_problem(error: Exception) -> Problem | None:
    match error:
        case KeyRequiredError():
            detail = "This call needs an API key: send it as Authorization: Bearer KEY, or as X-API-Key: KEY."
            return Problem(HTTPStatus.UNAUTHORIZED, "key-required", detail, more_headers=_CHALLENGE)
        case InvalidKeyError():
            return Problem(
                HTTPStatus.UNAUTHORIZED, "invalid-key", f"The API key {error}.", more_headers=_CHALLENGE
            )
        case MissingScopeError(needed=needed, scopes=scopes):
            detail = f"This call needs a key of the scope {needed}; this one has {', '.join(scopes)}."
            return Problem(HTTPStatus.FORBIDDEN, "missing-scope", detail, {"scope": str(needed)})
        case exceptions.PermissionDenied():
            return Problem(HTTPStatus.FORBIDDEN, "csrf-failed", str(error.detail))
        case ThrottledError(allowance=allowance):
            whose = {"address": "without a valid key from this address"}.get(
                allowance.name, f"of this {allowance.name}"
            )
            return Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                "too-many-requests",
                f"{in_words(allowance.limit).capitalize()} {whose} are answered; this is one more.",
                retry_after_s=allowance.more_in_s,
                more_headers=allowance.headers,
            )
    return None


def _idempotency_problem(error: Exception) -> Problem | None:
    match error:
        case KeyInUseError():
            detail = "A request with this Idempotency-Key is still under way."
            return Problem(HTTPStatus.CONFLICT, "idempotency-key-in-use", detail, retry_after_s=1)
        case KeyReusedError():
            detail = "This Idempotency-Key was used with another request: take a new one for each."
            return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "idempotency-key-reused", detail)
    return None


def _job_problem(error: Exception) -> Problem | None:
    match error:
        case JobNotFoundError():
            return Problem(HTTPStatus.NOT_FOUND, "unknown-job", "There is no job of this job_id.")
        case JobStoppedError():
            return Problem(HTTPStatus.CONFLICT, "job-stopped", "The job has been stopped for good.")
        case JobNotStoppedError(status=status):
            detail = f"The job is {status}: stop it first, by POST /prices/stop."
            return Problem(HTTPStatus.CONFLICT, "job-not-stopped", detail)
        case UnservedSymbolsError():
            errors = [{"field": "symbols", "problem": str(error), "allowed": SYMBOLS_ALLOWED}]
            return Problem(HTTPStatus.BAD_REQUEST, "invalid-symbols", _sentence(errors), {"errors": errors})
        case StrictKeyError(plan=plan):
            detail = f"{plan.provider} is {plan}."
            return Problem(
                HTTPStatus.UNPROCESSABLE_ENTITY, "not-configured", detail, {"variable": plan.variable}
            )
        case BeyondBudgetError(plan=plan):
            detail = (
                f"The job wants {figure(plan.wanted_per_day):,} requests a day of {plan.provider}'s budget,"
                f" {budget_in_words(plan)}, and would get {figure(plan.granted_per_day):,};"
                f" {shortest_in_words(plan)}."
            )
            more = {"shortest_interval": plan.shortest_interval}
            return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "beyond-budget", detail, more)
    return None


def _stored_problem(error: Exception) -> Problem | None:
    match error:
        case NoAverageError():
            return Problem(HTTPStatus.NOT_FOUND, "no-average", f"There is no average of {error}.")
        case UnknownPriceError():
            return Problem(HTTPStatus.NOT_FOUND, "unknown-price", "There is no price of this event_id.")
        case UnknownRawAnswerError():
            detail = "There is no raw answer of this raw_response_id."
            return Problem(HTTPStatus.NOT_FOUND, "unknown-raw-answer", detail)
        case RawAnswerGoneError(oldest=oldest):
            detail = f"Raw answers of that time are no longer kept: the oldest are of {oldest}."
            return Problem(HTTPStatus.GONE, "gone", detail)
    return None


def _price_problem(error: Exception) -> Problem | None:
    match error:
        case NotConfiguredError():
            more = {"variable": error.variable}
            return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "not-configured", f"{error}.", more)
        case ProviderTimeoutError():
            return _timeout(answers.sentence(error.message))
        case LatestTimeoutError():
            return _timeout(f"{error} did not answer in time.")
        case ProviderError():
            return _provider_problem(error)
        case SharedStateError():
            detail = f"{error}: it knows of breakers and budgets."
            return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "redis-away", detail, retry_after_s=5)
        case RequestRefusedError(refused=refused):
            return _refusal(refused)
        case TooManyFetchesError():
            detail = answers.sentence(str(error))
            return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "too-many-fetches", detail, retry_after_s=1)
    return _latest_problem(error)


def _latest_problem(error: Exception) -> Problem | None:
    match error:
        case TooOldError():
            age = "of unknown age" if error.age_s is None else f"{math.ceil(error.age_s)} s old"
            more = {"age_seconds": error.age_s} | _attempts_of(error)
            return Problem(HTTPStatus.NOT_FOUND, "too-old", f"The best price there is is {age}.", more)
        case NothingStoredError():
            detail = f"There is no stored price of {error} of the last week."
            return Problem(HTTPStatus.NOT_FOUND, "no-stored-price", detail)
        case NoPriceError():
            return _no_price_problem(error)
    return None


_TROUBLES: Mapping[DatabaseTrouble, tuple[str, str, int]] = {
    DatabaseTrouble.UNREACHABLE: ("database-away", "The database cannot be reached.", 5),
    DatabaseTrouble.BUSY: ("database-busy", "The database is busy with other work; try again.", 1),
    DatabaseTrouble.DISK_FULL: (
        "disk-full",
        "The database's disk has no room left: what is stored can be read, and nothing new is stored.",
        60,
    ),
    DatabaseTrouble.READ_ONLY: ("database-read-only", "The database takes no writes just now.", 5),
}


def _database_problem(trouble: DatabaseTrouble, error: Exception) -> Problem:
    name, detail, retry_after_s = _TROUBLES[trouble]
    log.error(f"api.{name.replace('-', '_')}", reason=str(error).partition("\n")[0])
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, name, detail, retry_after_s=retry_after_s)


def _timeout(detail: str) -> Problem:
    return Problem(HTTPStatus.GATEWAY_TIMEOUT, "provider-timeout", detail, retry_after_s=5)


def _provider_problem(error: ProviderError) -> Problem:
    is_limit = error.kind == ErrorKind.RATE_LIMITED
    return Problem(
        STATUS_OF_KIND[error.kind],
        error.kind.replace("_", "-"),
        answers.sentence(error.message),
        retry_after_s=error.retry_after or 60 if is_limit else None,
    )


def _refusal(refused: Refused) -> Problem:
    used_up = refused.refusal in BUDGET_REFUSALS
    return Problem(
        HTTPStatus.TOO_MANY_REQUESTS if used_up else HTTPStatus.SERVICE_UNAVAILABLE,
        "budget-used" if used_up else "provider-not-asked",
        answers.sentence(refused.reason),
        retry_after_s=refused.retry_after_s or 1,
    )


def _no_price_problem(error: NoPriceError) -> Problem | None:
    cause = error.cause
    detail = f"{cause.provider}: {cause.message}."
    problem = problem_for(cause.error)
    if problem is None or error.is_named:
        return problem and replace(problem, detail=detail)
    more = {**problem.more, **_attempts_of(error)}
    return replace(problem, detail=f"No provider gave a price. {detail}", more=more)


def _attempts_of(error: NoPriceError | TooOldError) -> dict[str, Any]:
    return {"attempts": answers.attempts(error.failures)}


def _body_error(error: exceptions.ParseError) -> dict[str, Any]:
    return {"errors": [{"field": "body", "problem": str(error.detail), "allowed": "a JSON object"}]}


def _name_of_faults(errors: list[dict[str, str]]) -> str:
    first, *others = {entry["field"] for entry in errors}
    return "invalid-request" if others or not _FIELD_NAME.fullmatch(first) else f"invalid-{first}"


def _sentence(errors: list[dict[str, str]]) -> str:
    return "; ".join(f"{entry['field']}: {entry['problem']}" for entry in errors) + "."
