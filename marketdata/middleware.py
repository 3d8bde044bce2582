"""Requests that no view can read are refused before one tries."""

from collections.abc import Callable
from http import HTTPStatus

from django.http import HttpRequest, HttpResponse

from prices.api.errors import problem_page


def refuse_unreadable(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Refuse a NUL in the query or a cookie (PostgreSQL holds none), and a body of unknown length.

    A WSGI server gives such a body as an empty one.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        return _refusal(request) or get_response(request)

    return middleware


def _refusal(request: HttpRequest) -> HttpResponse | None:
    if "chunked" in request.headers.get("Transfer-Encoding", "").lower():
        detail = "Send the body with a Content-Length."
        return problem_page(HTTPStatus.LENGTH_REQUIRED, "length-required", detail)
    fields = [name for name, values in request.GET.lists() if any("\0" in text for text in (name, *values))]
    if any("\0" in value for value in request.COOKIES.values()):
        fields.append("Cookie")
    if not fields:
        return None
    errors = [
        {"field": name[:60], "problem": "holds a NUL", "allowed": "text without NUL"} for name in fields
    ]
    return problem_page(
        HTTPStatus.BAD_REQUEST, "invalid-request", f"{', '.join(fields)[:200]}: holds a NUL.", errors=errors
    )
