"""Who may change something from a page.

A page is used by a browser, which sends along whatever it holds for this host; and whoever reaches an open
service may look. To change something takes a user of the admin who may change jobs, unless nobody but this
machine reaches the service: it listens on loopback only, and answers to no name but this machine's own. The
client's address tells nothing: behind a proxy on this machine all are 127.0.0.1, and a page of anywhere may
have its own name lead to 127.0.0.1 (DNS rebinding), so that only the name in `Host` gives it away.
"""

from collections.abc import Iterable
from http import HTTPStatus
from ipaddress import ip_address

from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import reverse

from prices.access.rights import needs_keys
from prices.pages.listening import listens_on_loopback_only

# 0.0.0.0 is none that a resolver can be made to lead here: as the address of a request it is this machine, on
# every system. It says nothing of where the service listens, which is asked of the sockets.
_OWN_NAMES = frozenset({"localhost", "0.0.0.0"})  # noqa: S104 - a name, not where to listen


def may_change(request: HttpRequest) -> bool:
    """Return whether whoever sends the request may change something from a page."""
    if not needs_keys() and is_for_this_machine_only():
        return True
    user = request.user
    return user.is_active and user.is_staff and user.has_perm("prices.change_polljob")


def is_for_this_machine_only() -> bool:
    """Return whether nobody but this machine reaches the service, by what it listens at and answers to."""
    return _are_own_names(settings.ALLOWED_HOSTS) and listens_on_loopback_only()


def ask_to_log_in(request: HttpRequest) -> HttpResponseBase:
    """Answer who may not change anything: by the login, which leads back; a user who may not is told so."""
    if request.user.is_staff:
        return not_allowed(request, "change jobs")
    return redirect_to_login(request.get_full_path(), reverse("admin:login"))


def not_allowed(request: HttpRequest, what: str) -> HttpResponse:
    """Answer a user who is logged in and may not do this."""
    context = {"detail": f"The user {request.user.get_username()} may not {what}."}
    return render(request, "pages/not_allowed.html", context, status=HTTPStatus.FORBIDDEN)


def _are_own_names(names: Iterable[str]) -> bool:
    return all(name.lower() in _OWN_NAMES or _is_loopback(name) for name in names)


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
