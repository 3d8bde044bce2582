"""Errors as application/problem+json (RFC 9457): the one shape, made only here."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

import structlog
from django.core.exceptions import DisallowedHost
from django.http import Http404, HttpRequest, HttpResponse
from rest_framework import exceptions
from rest_framework.response import Response

from prices.api import responses as answers
from prices.api.fields import SYMBOLS_ALLOWED
from prices.api.renderers import ExactJSONRenderer
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
from providers.rate_limits.permits import Refused
from providers.rate_limits.redis_scripts import SharedStateError

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
# What was wrong a moment ago may be right now; a cache may keep a 404 or 405 of which nothing is said.
NOT_KEPT = {"Cache-Control": "no-store"}
# So many faults of a request are told: an answer that tells all of thousands helps nobody.
MOST_FAULTS = 10
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


def problem_response(error: Exception, context: Mapping[str, Any]) -> Response | None:
    """Return the answer for an error that a view raised, or None for one that is a bug (500)."""
    found = _problem_of(error)
    if found is None:
        return None
    return Response(
        problem(found.status, found.name, found.detail, **found.more),
        status=found.status,
        headers=NOT_KEPT | found.headers,
        content_type=MEDIA_TYPE,
    )


def problem_of(error: Exception) -> dict[str, Any] | None:
    """Return the problem of one symbol among others, None for a bug; `retry_after` as the header has it."""
    found = _problem_of(error)
    if found is None:
        return None
    body = problem(found.status, found.name, found.detail, **found.more)
    return body if found.retry_after is None else body | {"retry_after": found.retry_after}


def problem(status: HTTPStatus, name: str, detail: str, **more: Any) -> dict[str, Any]:
    """Return the members of a problem: type, title, status, detail, and what else is told."""
    return {
        "type": f"urn:marketdata:{name}",
        "title": name.replace("-", " ").capitalize(),
        "status": int(status),
        "detail": detail,
        **more,
    }


def problem_page(status: HTTPStatus, name: str, detail: str, **more: Any) -> HttpResponse:
    """Return a problem outside of the REST views."""
    body = ExactJSONRenderer().render(problem(status, name, detail, **more))
    return HttpResponse(body, status=status, headers=NOT_KEPT, content_type=MEDIA_TYPE)


def plain_problem(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Return the problem for an address that does not exist (Django's handler404)."""
    return problem_page(HTTPStatus.NOT_FOUND, "no-such-address", f"There is nothing at {request.path}.")


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Return the problem for a request that Django itself refuses (handler400)."""
    if isinstance(exception, DisallowedHost):
        detail = "This service is not known by the name in the header Host: ALLOWED_HOSTS lists its names."
        return problem_page(HTTPStatus.BAD_REQUEST, "unknown-host", detail)
    return problem_page(HTTPStatus.BAD_REQUEST, "bad-request", "The request cannot be used.")


def server_error(request: HttpRequest) -> HttpResponse:
    """Return the problem for a bug or a part that is away (handler500)."""
    detail = "Something failed here; the service's log says what."
    return problem_page(HTTPStatus.INTERNAL_SERVER_ERROR, "internal-error", detail)


@dataclass(frozen=True, slots=True)
class _Problem:
    """What an answer says of an error: `name` ends its type, `more` is told besides."""

    status: HTTPStatus
    name: str
    detail: str
    more: Mapping[str, Any] = field(default_factory=dict)
    retry_after_s: float | None = None

    @property
    def retry_after(self) -> int | None:
        """Return when to ask again, in whole seconds, one at least; None where no time is known."""
        return None if self.retry_after_s is None else max(1, math.ceil(self.retry_after_s))

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers that say so."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


def _problem_of(error: Exception) -> _Problem | None:
    """Return what to say of an error; None for one that is a bug."""
    if trouble := database_trouble(error):
        return _database_problem(trouble, error)
    readers = (_request_problem, _key_problem, _job_problem, _stored_problem, _price_problem)
    return next(filter(None, (read(error) for read in readers)), None)


def _request_problem(error: Exception) -> _Problem | None:
    match error:
        case InvalidRequestError(errors=errors):
            name = _name_of_faults(errors)
            return _Problem(HTTPStatus.BAD_REQUEST, name, _sentence(errors), {"errors": errors})
        case exceptions.ParseError():
            return _Problem(HTTPStatus.BAD_REQUEST, "invalid-body", str(error.detail), _body_error(error))
        case exceptions.UnsupportedMediaType():
            detail = "Send the body as application/json."
            return _Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail)
        case exceptions.MethodNotAllowed():
            return _Problem(HTTPStatus.METHOD_NOT_ALLOWED, "method-not-allowed", str(error.detail))
        case Http404():
            return _Problem(HTTPStatus.NOT_FOUND, "no-such-address", "There is nothing at this address.")
    return None


def _key_problem(error: Exception) -> _Problem | None:
    match error:
        case KeyInUseError():
            detail = "A request with this Idempotency-Key is still under way."
            return _Problem(HTTPStatus.CONFLICT, "idempotency-key-in-use", detail, retry_after_s=1)
        case KeyReusedError():
            detail = "This Idempotency-Key was used with another request: take a new one for each."
            return _Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "idempotency-key-reused", detail)
    return None


def _job_problem(error: Exception) -> _Problem | None:
    match error:
        case JobNotFoundError():
            return _Problem(HTTPStatus.NOT_FOUND, "unknown-job", "There is no job of this job_id.")
        case JobStoppedError():
            return _Problem(HTTPStatus.CONFLICT, "job-stopped", "The job has been stopped for good.")
        case JobNotStoppedError(status=status):
            detail = f"The job is {status}: stop it first, by POST /prices/stop."
            return _Problem(HTTPStatus.CONFLICT, "job-not-stopped", detail)
        case UnservedSymbolsError():
            errors = [{"field": "symbols", "problem": str(error), "allowed": SYMBOLS_ALLOWED}]
            return _Problem(HTTPStatus.BAD_REQUEST, "invalid-symbols", _sentence(errors), {"errors": errors})
        case StrictKeyError(plan=plan):
            detail = f"{plan.provider} is {plan}."
            return _Problem(
                HTTPStatus.UNPROCESSABLE_ENTITY, "not-configured", detail, {"variable": plan.variable}
            )
        case BeyondBudgetError(plan=plan):
            detail = (
                f"The job wants {figure(plan.wanted_per_day):,} requests a day of {plan.provider}'s budget,"
                f" {budget_in_words(plan)}, and would get {figure(plan.granted_per_day):,};"
                f" {shortest_in_words(plan)}."
            )
            more = {"shortest_interval": plan.shortest_interval}
            return _Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "beyond-budget", detail, more)
    return None


def _stored_problem(error: Exception) -> _Problem | None:
    match error:
        case NoAverageError():
            return _Problem(HTTPStatus.NOT_FOUND, "no-average", f"There is no average of {error}.")
        case UnknownPriceError():
            return _Problem(HTTPStatus.NOT_FOUND, "unknown-price", "There is no price of this event_id.")
        case UnknownRawAnswerError():
            detail = "There is no raw answer of this raw_response_id."
            return _Problem(HTTPStatus.NOT_FOUND, "unknown-raw-answer", detail)
        case RawAnswerGoneError(oldest=oldest):
            detail = f"Raw answers of that time are no longer kept: the oldest are of {oldest}."
            return _Problem(HTTPStatus.GONE, "gone", detail)
    return None


def _price_problem(error: Exception) -> _Problem | None:
    match error:
        case NotConfiguredError():
            more = {"variable": error.variable}
            return _Problem(HTTPStatus.SERVICE_UNAVAILABLE, "not-configured", f"{error}.", more)
        case ProviderTimeoutError():
            return _timeout(answers.sentence(error.message))
        case LatestTimeoutError():
            return _timeout(f"{error} did not answer in time.")
        case ProviderError():
            return _provider_problem(error)
        case SharedStateError():
            detail = f"{error}: it knows of breakers and budgets."
            return _Problem(HTTPStatus.SERVICE_UNAVAILABLE, "redis-away", detail, retry_after_s=5)
        case RequestRefusedError(refused=refused):
            return _refusal(refused)
        case TooManyFetchesError():
            detail = answers.sentence(str(error))
            return _Problem(HTTPStatus.SERVICE_UNAVAILABLE, "too-many-fetches", detail, retry_after_s=1)
    return _latest_problem(error)


def _latest_problem(error: Exception) -> _Problem | None:
    match error:
        case TooOldError():
            age = "of unknown age" if error.age_s is None else f"{math.ceil(error.age_s)} s old"
            more = {"age_seconds": error.age_s} | _attempts_of(error)
            return _Problem(HTTPStatus.NOT_FOUND, "too-old", f"The best price there is is {age}.", more)
        case NothingStoredError():
            detail = f"There is no stored price of {error} of the last week."
            return _Problem(HTTPStatus.NOT_FOUND, "no-stored-price", detail)
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


def _database_problem(trouble: DatabaseTrouble, error: Exception) -> _Problem:
    name, detail, retry_after_s = _TROUBLES[trouble]
    log.error(f"api.{name.replace('-', '_')}", reason=str(error).partition("\n")[0])
    return _Problem(HTTPStatus.SERVICE_UNAVAILABLE, name, detail, retry_after_s=retry_after_s)


def _timeout(detail: str) -> _Problem:
    return _Problem(HTTPStatus.GATEWAY_TIMEOUT, "provider-timeout", detail, retry_after_s=5)


def _provider_problem(error: ProviderError) -> _Problem:
    is_limit = error.kind == ErrorKind.RATE_LIMITED
    return _Problem(
        STATUS_OF_KIND[error.kind],
        error.kind.replace("_", "-"),
        answers.sentence(error.message),
        retry_after_s=error.retry_after or 60 if is_limit else None,
    )


def _refusal(refused: Refused) -> _Problem:
    used_up = refused.refusal in BUDGET_REFUSALS
    return _Problem(
        HTTPStatus.TOO_MANY_REQUESTS if used_up else HTTPStatus.SERVICE_UNAVAILABLE,
        "budget-used" if used_up else "provider-not-asked",
        answers.sentence(refused.reason),
        retry_after_s=refused.retry_after_s or 1,
    )


def _no_price_problem(error: NoPriceError) -> _Problem | None:
    cause = error.cause
    detail = f"{cause.provider}: {cause.message}."
    problem = _problem_of(cause.error)
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
