"""Errors as application/problem+json (RFC 9457): the one shape, made only here."""

import math
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from django.core.exceptions import DisallowedHost
from django.http import Http404, HttpRequest, HttpResponse
from rest_framework import exceptions
from rest_framework.response import Response

from prices.api import responses as answers
from prices.api.renderers import ExactJSONRenderer
from prices.database.errors import DatabaseTrouble, database_trouble
from prices.jobs.services import JobNotFoundError, JobStoppedError
from prices.latest.errors import (
    BUDGET_REFUSALS,
    LatestTimeoutError,
    NoPriceError,
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
    status, name, detail, more, headers = _describe(error)
    if status is None:
        return None
    return Response(
        problem(status, name, detail, **more),
        status=status,
        headers=NOT_KEPT | headers,
        content_type=MEDIA_TYPE,
    )


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


_Description = tuple[HTTPStatus | None, str, str, dict[str, Any], dict[str, str]]


def _describe(error: Exception) -> _Description:  # noqa: C901 - the table of all errors
    if trouble := database_trouble(error):
        return _describe_trouble(trouble, error)
    match error:
        case InvalidRequestError():
            name = _name_of_faults(error.errors)
            return HTTPStatus.BAD_REQUEST, name, _sentence(error.errors), {"errors": error.errors}, {}
        case exceptions.ParseError():
            return HTTPStatus.BAD_REQUEST, "invalid-body", str(error.detail), _body_error(error), {}
        case exceptions.UnsupportedMediaType():
            detail = "Send the body as application/json."
            return HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail, {}, {}
        case exceptions.MethodNotAllowed():
            return HTTPStatus.METHOD_NOT_ALLOWED, "method-not-allowed", str(error.detail), {}, {}
        case Http404():
            return HTTPStatus.NOT_FOUND, "no-such-address", "There is nothing at this address.", {}, {}
        case JobNotFoundError():
            return HTTPStatus.NOT_FOUND, "unknown-job", "There is no job of this job_id.", {}, {}
        case JobStoppedError():
            return HTTPStatus.CONFLICT, "job-stopped", "The job has been stopped for good.", {}, {}
        case NotConfiguredError():
            more = {"variable": error.variable}
            return HTTPStatus.SERVICE_UNAVAILABLE, "not-configured", f"{error}.", more, {}
        case StrictKeyError():
            more = {"variable": error.plan.variable}
            detail = f"{error.plan.provider} is {error.plan}."
            return HTTPStatus.UNPROCESSABLE_ENTITY, "not-configured", detail, more, {}
        case BeyondBudgetError():
            return _describe_excess(error)
        case ProviderTimeoutError():
            detail = answers.sentence(error.message)
            return HTTPStatus.GATEWAY_TIMEOUT, "provider-timeout", detail, {}, {"Retry-After": "5"}
        case ProviderError():
            return _describe_provider_error(error)
        case LatestTimeoutError():
            detail = f"{error} did not answer in time."
            return HTTPStatus.GATEWAY_TIMEOUT, "provider-timeout", detail, {}, {"Retry-After": "5"}
        case SharedStateError():
            detail = f"{error}: it knows of breakers and budgets."
            return HTTPStatus.SERVICE_UNAVAILABLE, "redis-away", detail, {}, {"Retry-After": "5"}
        case RequestRefusedError():
            return _describe_refusal(error.refused)
        case TooOldError():
            age = "of unknown age" if error.age_s is None else f"{math.ceil(error.age_s)} s old"
            detail = f"The best price there is is {age}."
            more = {"age_seconds": error.age_s} | _attempts_of(error)
            return HTTPStatus.NOT_FOUND, "too-old", detail, more, {}
        case TooManyFetchesError():
            detail = answers.sentence(str(error))
            return HTTPStatus.SERVICE_UNAVAILABLE, "too-many-fetches", detail, {}, {"Retry-After": "1"}
        case NoPriceError():
            return _describe_no_price(error)
    return None, "", "", {}, {}


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


def _describe_trouble(trouble: DatabaseTrouble, error: Exception) -> _Description:
    name, detail, retry_after_s = _TROUBLES[trouble]
    log.error(f"api.{name.replace('-', '_')}", reason=str(error).partition("\n")[0])
    return HTTPStatus.SERVICE_UNAVAILABLE, name, detail, {}, {"Retry-After": str(retry_after_s)}


def _describe_excess(error: BeyondBudgetError) -> _Description:
    plan = error.plan
    wanted, granted = figure(plan.wanted_per_day), figure(plan.granted_per_day)
    detail = (
        f"The job wants {wanted:,} requests a day of {plan.provider}'s budget, {budget_in_words(plan)},"
        f" and would get {granted:,}; {shortest_in_words(plan)}."
    )
    more = {"shortest_interval": plan.shortest_interval}
    return HTTPStatus.UNPROCESSABLE_ENTITY, "beyond-budget", detail, more, {}


def _describe_refusal(refused: Refused) -> _Description:
    used_up = refused.refusal in BUDGET_REFUSALS
    status = HTTPStatus.TOO_MANY_REQUESTS if used_up else HTTPStatus.SERVICE_UNAVAILABLE
    headers = {"Retry-After": str(max(1, math.ceil(refused.retry_after_s or 1)))}
    name = "budget-used" if used_up else "provider-not-asked"
    return status, name, answers.sentence(refused.reason), {}, headers


def _describe_no_price(error: NoPriceError) -> _Description:
    cause = error.cause
    status, name, _, more, headers = _describe(cause.error)
    detail = f"{cause.provider}: {cause.message}."
    if error.is_named:
        return status, name, detail, more, headers
    return status, name, f"No provider gave a price. {detail}", more | _attempts_of(error), headers


def _attempts_of(error: NoPriceError | TooOldError) -> dict[str, Any]:
    return {"attempts": answers.attempts(error.failures)}


def _describe_provider_error(error: ProviderError) -> _Description:
    headers = {}
    if error.kind == ErrorKind.RATE_LIMITED:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after or 60)))
    name = error.kind.replace("_", "-")
    return STATUS_OF_KIND[error.kind], name, answers.sentence(error.message), {}, headers


def _body_error(error: exceptions.ParseError) -> dict[str, Any]:
    return {
        "errors": [{"field": "body", "problem": str(error.detail), "allowed": "a JSON object, up to 256 KiB"}]
    }


def _name_of_faults(errors: list[dict[str, str]]) -> str:
    first, *others = {entry["field"] for entry in errors}
    return "invalid-request" if others or not _FIELD_NAME.fullmatch(first) else f"invalid-{first}"


def _sentence(errors: list[dict[str, str]]) -> str:
    return "; ".join(f"{entry['field']}: {entry['problem']}" for entry in errors) + "."
