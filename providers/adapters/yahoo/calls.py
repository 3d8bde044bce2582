"""One call to Yahoo, and the requests that yfinance sends for it: for cookie, crumb and data.

Each is held to the call's deadline, to the budget and to Yahoo's own hosts, wherever the library or a
redirect would go.
"""

import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from curl_cffi.requests import Response
from django.conf import settings

from providers.http.network import certificates
from providers.http.transfer import TransferSession
from providers.rate_limits.outgoing import NotSentError, Outgoing

# The cookie and the crumb may take half of the time: a chart is answered without them too.
COOKIE_SHARE = 0.5
MAX_REDIRECTS = 5

_DATA_PATHS = ("/v7/finance/quote", "/v8/finance/chart/")
_CRUMB_PATH = "/v1/test/getcrumb"
_CRUMB_REFUSED = frozenset({401, 403})
_LETTER = re.compile(r"[A-Za-z]")


@dataclass(slots=True)
class Call:
    """What is known of a call while the library works on it; times are by the monotonic clock."""

    outgoing: Outgoing
    started: float
    timeout_s: float
    # Without a crumb the answer is a refusal.
    needs_crumb: bool = False
    # Yahoo's word so far; it stands if the library's second attempt fails.
    response: Response | None = None
    # How often Yahoo refused the crumb.
    crumbs_refused: int = 0
    # What was sent with its requests, and could be repeated in its answers.
    secrets: set[str] = field(default_factory=set)

    @property
    def deadline(self) -> float:
        """Return when the call ends, answered or not."""
        return self.started + self.timeout_s

    @property
    def cookie_deadline(self) -> float:
        """Return when cookie and crumb are given up."""
        return self.started + self.timeout_s * COOKIE_SHARE

    def has_room_for_a_crumb(self) -> bool:
        """Return whether the budget leaves time for crumb and data after a cookie."""
        fits = self.outgoing.has_time_for
        return fits(1, deadline=self.cookie_deadline) and fits(2, deadline=self.deadline)

    def take(self, response: Response, *, had_crumb: bool) -> Response:
        """Keep an answer; only one that refuses the crumb is given to the library for a second attempt.

        Raises AnsweredError for any other that is an error.
        """
        self.response = response
        is_refused = had_crumb and response.status_code in _CRUMB_REFUSED
        self.crumbs_refused += is_refused
        if response.status_code >= 400 and not is_refused:
            raise AnsweredError
        return response


class AnsweredError(Exception):
    """Ends the library's work on a request: its answer is there."""


# The call that this thread is busy with.
current_call: ContextVar[Call] = ContextVar("call")


class CallSession(TransferSession):
    """The session that the library sends its requests by: each belongs to the thread's own call."""

    def __init__(self, base_url: str) -> None:
        super().__init__(impersonate="chrome")
        self._local_server = base_url.rstrip("/")

    def request(self, method: Any, url: str, *args: Any, **kwargs: Any) -> Response:
        """Send a request of the library's.

        Raises AnsweredError where the library has nothing left to do, TooLargeError, TransferError,
        ConnectionRefusedError for a cookie or crumb that is not asked for, NotSentError for data.
        """
        call = current_call.get()
        path = urlsplit(url).path
        if path.startswith(_DATA_PATHS):
            call.secrets |= self._secrets(kwargs["params"])
            response = self._send(method, url, call, deadline=call.deadline, **kwargs)
            call.secrets |= self._secrets({})
            return call.take(response, had_crumb="crumb" in kwargs["params"])
        response = self._accompany(method, url, call, **kwargs)
        for _ in range(MAX_REDIRECTS):
            if "location" not in response.headers:
                break
            url = urljoin(url, response.headers["location"])
            response = self._accompany("GET", url, call)
        if path == _CRUMB_PATH and response.status_code >= 400:
            raise ConnectionRefusedError
        return response

    def _secrets(self, params: Mapping[str, str]) -> set[str]:
        # The jar's own lock: another thread may be putting a cookie in.
        with self.cookies.jar._cookies_lock:  # type: ignore[attr-defined]  # a private name
            values = {params.get("crumb", ""), *(cookie.value or "" for cookie in self.cookies.jar)}
        # A cookie that is a number or a date is no secret, and could stand in a price.
        return {value for value in values if _LETTER.search(value)}

    def _accompany(self, method: Any, url: str, call: Call, **kwargs: Any) -> Response:
        # Beyond the budget there is no cookie and no crumb: a chart is answered without them.
        if call.outgoing.is_permit_left and not call.has_room_for_a_crumb():
            raise ConnectionRefusedError
        try:
            return self._send(method, url, call, deadline=call.cookie_deadline, **kwargs)
        except NotSentError as error:
            raise ConnectionRefusedError from error

    def _send(self, method: Any, url: str, call: Call, *, deadline: float, **kwargs: Any) -> Response:
        parts = urlsplit(url)
        # A redirect may name any host, and file:// as well.
        if parts.scheme != "https" or not f".{parts.hostname}".endswith(".yahoo.com"):
            raise ConnectionRefusedError
        with call.outgoing.request(deadline=deadline):
            return self._exchange(method, parts, call, deadline=deadline, **kwargs)

    def _exchange(
        self, method: Any, parts: SplitResult, call: Call, *, deadline: float, **kwargs: Any
    ) -> Response:
        url = parts.geturl()
        if self._local_server:
            url = self._local_server + parts._replace(scheme="", netloc="").geturl()
            kwargs["headers"] = {**kwargs.get("headers", {}), "X-Forwarded-Host": parts.hostname}
        ours = {"allow_redirects": False, "verify": certificates(), "proxy": settings.PROVIDER_PROXY}
        kwargs.pop("timeout", None)
        return self.transfer(
            method, url, deadline=deadline, before_sending=call.outgoing.check, **{**kwargs, **ours}
        )
