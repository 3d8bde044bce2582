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
from django.views.decorators.http import require_http_methods, require_safe

from prices.access.rights import Access, MissingScopeError
from prices.api.access.authentication import session_access
from prices.api.problems import problem_for
from prices.api.views.stream import stream_address
from prices.pages.changing import ask_to_log_in, may_change, not_allowed

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
    return csrf_exempt(require_safe(_answer_of(view)))


def form_page(view: Callable[..., Shown | HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Answer as `page` does, and POST, with its CSRF token, for who may change something.

    Who may not is sent to the login, which leads back to the page.
    """

    @wraps(view)
    def guarded(request: HttpRequest, access: Access, **kwargs: Any) -> Shown | HttpResponseBase:
        if request.method == "POST" and not may_change(request):
            return ask_to_log_in(request)
        return view(request, access, **kwargs)

    return require_http_methods(["GET", "HEAD", "POST"])(_answer_of(guarded))


def _answer_of(view: Callable[..., Shown | HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    @wraps(view)
    def answer(request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
        try:
            access = session_access(request)
            if access is None:
                return redirect_to_login(request.get_full_path(), reverse("admin:login"))
            shown = view(request, access, **kwargs)
            response = _rendered(request, *shown) if isinstance(shown, tuple) else shown
        except MissingScopeError:
            response = not_allowed(request, "see jobs")
        except NothingToShowError as error:
            response = render(request, "pages/nothing.html", {"detail": error}, status=HTTPStatus.NOT_FOUND)
        except (DatabaseError, InterfaceError) as error:
            response = _fault(request, error)
        response["Content-Security-Policy"] = _POLICY.format(stream=_origin(stream_address(request)))
        response["Referrer-Policy"] = "same-origin"
        response["Cache-Control"] = "no-store"
        return response

    return answer


def _rendered(request: HttpRequest, template: str, shown: Mapping[str, Any]) -> HttpResponse:
    return render(request, template, {**shown, "stream": stream_address(request)})


def _origin(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"


def _fault(request: HttpRequest, error: Exception) -> HttpResponse:
    found = problem_for(error)
    if found is None:
        raise error
    return render(request, "pages/fault.html", {"detail": found.detail}, status=found.status)
