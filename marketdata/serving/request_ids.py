"""The id of a request, on its answer and on each line that is logged for it."""

import re
import secrets
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from structlog.contextvars import bind_contextvars

HEADER = "X-Request-ID"
# Fit for a header, a log and a shell. Those of load balancers and tracing are of these.
_FIT = re.compile(r"[\w.:/+=@~-]{1,128}", re.ASCII)


def request_id_of(given: str | None) -> str:
    """Return the id that a client gave its request, or a new one where it gave none that is fit."""
    return given if given and _FIT.fullmatch(given) else secrets.token_hex(16)


def give_request_id(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Have what is logged from here on tell the request's id, and its answer.

    It stays bound afterwards: Django logs a 404 once all middleware is through, and a streamed answer is made
    after that. The bridge gives each request a context of its own, and the next request another id.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        request_id = request_id_of(request.META.get("HTTP_X_REQUEST_ID"))
        bind_contextvars(request_id=request_id)
        response = get_response(request)
        response[HEADER] = request_id
        return response

    return middleware
