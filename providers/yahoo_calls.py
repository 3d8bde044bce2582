"""One call to Yahoo, and the requests that yfinance sends for it: for cookie, crumb and data.

Each is held to the call's deadline, to the budget and to Yahoo's own hosts, wherever the library or a
redirect would go.
"""

import re
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urljoin, urlsplit

from curl_cffi import CurlOpt
from curl_cffi.requests import Response, Session

from providers.http import MAX_BODY_BYTES
from providers.permits import wait_to_accompany

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

    provider: str
    started: float
    timeout_s: float
    # Its permit is for one request; the others that the library sends wait for theirs.
    is_permit_used: bool = False
    # Yahoo's word so far; it stands if the library's second attempt fails.
    response: Response | None = None
    # What was sent with its requests, and could be repeated in its answers.
    secrets: set[str] = field(default_factory=set)

    @property
    def deadline(self) -> float:
        """Give when the call ends, answered or not."""
        return self.started + self.timeout_s

    @property
    def cookie_deadline(self) -> float:
        """Give when cookie and crumb are given up."""
        return self.started + self.timeout_s * COOKIE_SHARE

    def take(self, response: Response, *, had_crumb: bool) -> Response:
        """Keep an answer; only one that refuses the crumb is given to the library for a second attempt.

        Raises AnsweredError for any other that is an error.
        """
        self.response = response
        if response.status_code >= 400 and not (had_crumb and response.status_code in _CRUMB_REFUSED):
            raise AnsweredError
        return response


class AnsweredError(Exception):
    """Ends the library's work on a request: its answer is there."""


class TooLargeError(OSError):
    """Yahoo sends more than 1 MiB."""


# The call that this thread is busy with.
current_call: ContextVar[Call] = ContextVar("call")


class CallSession(Session[Response]):
    """The session that the library sends its requests by: each belongs to the thread's own call."""

    def __init__(self, base_url: str) -> None:
        # No proxy of the environment, as in providers/http.py.
        super().__init__(impersonate="chrome", curl_options={CurlOpt.NOPROXY: "*"})
        self._local_server = base_url.rstrip("/")

    def request(self, method: Any, url: str, *args: Any, **kwargs: Any) -> Response:
        """Send a request of the library's.

        Raises AnsweredError where the library has nothing left to do, TooLargeError, TimeoutError, and
        ConnectionRefusedError for what is not sent.
        """
        call = current_call.get()
        path = urlsplit(url).path
        if path.startswith(_DATA_PATHS):
            call.secrets |= self._secrets(kwargs["params"])
            if call.is_permit_used and not wait_to_accompany(call.provider, until=call.deadline):
                raise AnsweredError
            call.is_permit_used = True
            response = self._send(method, url, deadline=call.deadline, **kwargs)
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
        if not wait_to_accompany(call.provider, until=call.cookie_deadline):
            raise ConnectionRefusedError
        return self._send(method, url, deadline=call.cookie_deadline, **kwargs)

    def _send(self, method: Any, url: str, *, deadline: float, **kwargs: Any) -> Response:
        parts = urlsplit(url)
        host = parts.hostname or ""
        remaining = deadline - time.monotonic()
        # Below a millisecond curl would wait without end.
        if remaining < 0.001:
            raise TimeoutError
        # A redirect may name any host, and file:// as well.
        if parts.scheme != "https" or not f".{host}".endswith(".yahoo.com"):
            raise ConnectionRefusedError
        if self._local_server:
            url = self._local_server + parts._replace(scheme="", netloc="").geturl()
            kwargs["headers"] = {**kwargs.get("headers", {}), "X-Forwarded-Host": host}
        body = bytearray()
        limits = {"timeout": remaining, "allow_redirects": False, "content_callback": partial(_collect, body)}
        response = super().request(method, url, **{**kwargs, **limits})
        response.content = bytes(body)
        return response


def _collect(body: bytearray, chunk: bytes) -> int:
    body += chunk
    if len(body) > MAX_BODY_BYTES:
        raise TooLargeError
    return len(chunk)
