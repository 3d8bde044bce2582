"""Errors as application/problem+json (RFC 9457): the one shape, made only here."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse
from rest_framework.response import Response

from prices.api.problems import problem_for
from prices.api.renderers import ExactJSONRenderer

MEDIA_TYPE = "application/problem+json"
# What was wrong a moment ago may be right now; a cache may keep a 404 or 405 of which nothing is said.
NOT_KEPT = {"Cache-Control": "no-store"}


def problem_response(error: Exception, context: Mapping[str, Any]) -> Response | None:
    """Return the answer for an error that a view raised, or None for one that is a bug (500)."""
    found = problem_for(error)
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
    found = problem_for(error)
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
