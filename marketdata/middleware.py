"""What no view does: requests that none can read are refused, and wrong methods answered in one shape."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from django.contrib.messages.middleware import MessageMiddleware
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.http.response import HttpResponseBase

from prices.api.errors import problem_page
from prices.api.problems import MOST_FAULTS

# The REST calls of prices/api/urls.py, and the health checks.
API_ADDRESSES = ("/prices/", "/averages", "/providers", "/jobs", "/symbols", "/raw/", "/livez", "/readyz")


class PageMessages(MessageMiddleware):
    """Messages of the admin. The REST calls have none, and need not read cookies for them."""

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Answer the request."""
        if request.path_info.startswith(API_ADDRESSES):
            return self.get_response(request)
        return super().__call__(request)


def refuse_unreadable(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Refuse a NUL in the query or a cookie: PostgreSQL holds none."""

    def middleware(request: HttpRequest) -> HttpResponse:
        return _refusal(request) or get_response(request)

    return middleware


def explain_405(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Answer a method that a page does not take with a problem: Django's own answer is empty."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if not isinstance(response, HttpResponseNotAllowed):
            return response
        detail = f'Method "{request.method}" not allowed.'
        problem = problem_page(HTTPStatus.METHOD_NOT_ALLOWED, "method-not-allowed", detail)
        problem["Allow"] = response["Allow"]
        return problem

    return middleware


def _refusal(request: HttpRequest) -> HttpResponse | None:
    fields = []
    if "%00" in request.META["QUERY_STRING"] or "\0" in request.META["QUERY_STRING"]:
        fields = [
            name for name, values in request.GET.lists() if any("\0" in text for text in (name, *values))
        ]
    # A cookie may write it in octal.
    if "HTTP_COOKIE" in request.META and any("\0" in value for value in request.COOKIES.values()):
        fields.append("Cookie")
    if not fields:
        return None
    errors = [
        {"field": name[:60], "problem": "holds a NUL", "allowed": "text without NUL"}
        for name in fields[:MOST_FAULTS]
    ]
    return problem_page(
        HTTPStatus.BAD_REQUEST, "invalid-request", f"{', '.join(fields)[:200]}: holds a NUL.", errors=errors
    )
