"""What all pages have in common: who may look, what a browser may load, and what a fault looks like."""

from collections.abc import Callable, Mapping
from functools import wraps
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from django.contrib.auth.views import redirect_to_login
from django.db import DatabaseError, InterfaceError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from prices.api.access.authentication import session_access
from prices.api.problems import problem_for
from prices.api.views.stream import stream_address

# Everything comes from this service, and nothing is written in a page but in its own files. The stream has a
# port of its own.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self' {stream};"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


class NothingToShowError(Exception):
    """There is nothing at this address; the text says why."""


# The template, and what it shows.
Shown = tuple[str, Mapping[str, Any]]


def page(view: Callable[..., Shown]) -> Callable[..., HttpResponseBase]:
    """Answer GET and HEAD with a page; who needs a key and has no session is sent to the login."""

    @wraps(view)
    def answer(request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
        access = session_access(request)
        if access is None:
            return redirect_to_login(request.get_full_path(), reverse("admin:login"))
        try:
            template, shown = view(request, access, **kwargs)
            response = render(request, template, {**shown, "stream": stream_address(request)})
        except NothingToShowError as error:
            response = render(request, "pages/nothing.html", {"detail": error}, status=HTTPStatus.NOT_FOUND)
        except (DatabaseError, InterfaceError) as error:
            response = _fault(request, error)
        response["Content-Security-Policy"] = _POLICY.format(stream=_origin(stream_address(request)))
        response["Referrer-Policy"] = "same-origin"
        response["Cache-Control"] = "no-store"
        return response

    return csrf_exempt(require_safe(answer))


def _origin(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"


def _fault(request: HttpRequest, error: Exception) -> HttpResponse:
    found = problem_for(error)
    if found is None:
        raise error
    return render(request, "pages/fault.html", {"detail": found.detail}, status=found.status)
