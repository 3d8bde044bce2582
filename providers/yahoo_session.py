"""Yahoo by yfinance's own session (a browser's TLS, Yahoo's cookie and crumb), held to a deadline.

Importing this module imports yfinance. The library is pinned, and four of its habits are changed:
its cookie and crumb requests ignore the time-out and hold a lock meanwhile; it sends each request
that was refused once more; it takes any text for a crumb; it keeps cookies in a file that all
processes share.
"""

import logging
import os
import re
import threading
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import structlog
import yfinance
from curl_cffi import CurlOpt
from curl_cffi.requests import Response, Session
from curl_cffi.requests.exceptions import Timeout
from django.conf import settings
from yfinance.data import YfData
from yfinance.exceptions import YFException

from providers.base import ProviderError, RawAnswer, upstream_error
from providers.http import MAX_BODY_BYTES, check_unpacked, kept_headers, timed_out
from providers.permits import wait_to_accompany
from providers.redaction import redact

log = structlog.get_logger(__name__)

# The cookie and the crumb may take half of the time: a chart is answered without them too.
COOKIE_SHARE = 0.5
# Where Yahoo gives no crumb, it is not asked again with each request.
CRUMB_PAUSE_S = 60.0
MAX_REDIRECTS = 5

_DATA_PATHS = ("/v7/finance/quote", "/v8/finance/chart/")
_CRUMB_PATH = "/v1/test/getcrumb"
_CRUMB = re.compile(r"[^\s<>{}]{1,64}")
_CRUMB_REFUSED = frozenset({401, 403})
_LETTER = re.compile(r"[A-Za-z]")

# The library logs the crumb, and a warning for each cookie that it did not get; bs4, which reads
# Yahoo's consent page for it, one for each page that is empty.
for _name in ("yfinance", "bs4"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)
# No folder can be made there, so the library does without its files: each process has its own cookie.
yfinance.set_tz_cache_location(os.devnull)


def get(provider: str, symbols: tuple[str, ...], *, url: str, params: Mapping[str, str]) -> RawAnswer:
    """Send one GET to Yahoo and read its answer within PROVIDER_TIMEOUT_S seconds, whatever its status.

    Cookie and crumb are fetched as needed, and are taken out of the answer.
    Raises ProviderTimeoutError at the deadline, ProviderError (upstream_error) where Yahoo cannot be
    reached, breaks off, or sends more than 1 MiB.
    """
    call = _Call(provider, started=time.monotonic(), timeout_s=float(settings.PROVIDER_TIMEOUT_S))
    response = _exchange(call, url, params)
    check_unpacked(response.content)
    return RawAnswer(
        provider=provider,
        symbols=symbols,
        url=f"{url}?{urlencode(params)}",
        status=response.status_code,
        headers=kept_headers(
            {name: value or "" for name, value in response.headers.items()}, sorted(call.secrets)
        ),
        body=redact(response.content, call.secrets),
        received_at=datetime.now(UTC),
        latency_ms=(time.monotonic() - call.started) * 1000,
    )


def forget_clients() -> None:
    """Begin anew: no cookie, no crumb, no connection, no lock that another thread holds."""
    global _clients, _clients_lock
    # Kept, not freed: freeing would end the parent process's TLS connections.
    _inherited.append(_clients)
    _clients, _clients_lock = {}, threading.Lock()


@dataclass(slots=True)
class _Call:
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
        return self.started + self.timeout_s

    @property
    def cookie_deadline(self) -> float:
        return self.started + self.timeout_s * COOKIE_SHARE

    def take(self, response: Response, *, had_crumb: bool) -> Response:
        """Keep an answer; only one that refuses the crumb is given to the library for a second attempt."""
        self.response = response
        if response.status_code >= 400 and not (had_crumb and response.status_code in _CRUMB_REFUSED):
            raise _AnsweredError
        return response


class _AnsweredError(Exception):
    """Ends the library's work on a request: its answer is there."""


class _TooLargeError(OSError):
    pass


# The call that this thread is busy with.
_call: ContextVar[_Call] = ContextVar("call")


def _exchange(call: _Call, url: str, params: Mapping[str, str]) -> Response:
    failure = upstream_error("the provider cannot be reached, or broke off its answer")
    token = _call.set(call)
    try:
        _client(settings.YAHOO_BASE_URL).get(url, params=dict(params), timeout=call.timeout_s)
    except _AnsweredError:
        pass
    except (OSError, YFException) as error:
        failure = _reason(error, call) or failure
    finally:
        _call.reset(token)
    if call.response is None:
        raise failure
    return call.response


def _reason(error: Exception, call: _Call) -> ProviderError | None:
    if isinstance(error, Timeout | TimeoutError):
        return timed_out(call.timeout_s)
    if isinstance(error, _TooLargeError):
        return upstream_error("the answer is larger than 1 MiB")
    return None


class _Session(Session[Response]):
    def __init__(self, base_url: str) -> None:
        # No proxy of the environment, as in providers/http.py.
        super().__init__(impersonate="chrome", curl_options={CurlOpt.NOPROXY: "*"})
        self._local_server = base_url.rstrip("/")

    def request(self, method: Any, url: str, *args: Any, **kwargs: Any) -> Response:
        call = _call.get()
        path = urlsplit(url).path
        if path.startswith(_DATA_PATHS):
            call.secrets |= self._secrets(kwargs["params"])
            if call.is_permit_used and not wait_to_accompany(call.provider, until=call.deadline):
                raise _AnsweredError
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

    def _accompany(self, method: Any, url: str, call: _Call, **kwargs: Any) -> Response:
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
        raise _TooLargeError
    return len(chunk)


class _DeadlineLock:
    """Waits for a thread that fetches the cookie no longer than this thread's own call may last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def acquire(self) -> None:
        if not self._lock.acquire(timeout=max(0.0, _call.get().cookie_deadline - time.monotonic())):
            raise TimeoutError

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class _Client(YfData):  # type: ignore[misc]  # yfinance has no types
    _cookie: object
    _crumb: str | None

    def __init__(self, session: _Session) -> None:
        super().__init__(session)
        self._cookie_lock = _DeadlineLock()
        self._next_try = 0.0

    def _get_cookie_basic(self, timeout: float = 30) -> bool:
        has_cookie = bool(super()._get_cookie_basic(timeout))
        # The library knows of its cookie only by way of its file, and would fetch it with each request.
        self._cookie = self._cookie or (has_cookie or None)
        return has_cookie

    def _get_cookie_and_crumb(self, timeout: float = 30) -> tuple[str | None, str]:
        crumb = None
        if self._crumb is not None or time.monotonic() >= self._next_try:
            crumb = self._crumb_or_none(timeout)
            if crumb is None:
                self._crumb = self._cookie = None
                self._next_try = time.monotonic() + CRUMB_PAUSE_S
        return crumb, self._cookie_strategy

    def _crumb_or_none(self, timeout: float) -> str | None:
        try:
            crumb, _ = super()._get_cookie_and_crumb(timeout)
        # The library reads Yahoo's consent page without looking whether it is one, so anything can
        # happen here; what must not happen is that a chart, which needs no crumb, is lost by it.
        except Exception as error:  # noqa: BLE001
            log.warning("yahoo.no_crumb", error=type(error).__name__)
            return None
        return crumb if crumb is not None and _CRUMB.fullmatch(crumb) else None


_inherited: list[dict[str, _Client]] = []
_clients: dict[str, _Client] = {}
_clients_lock = threading.Lock()
os.register_at_fork(after_in_child=forget_clients)


def _client(base_url: str) -> _Client:
    with _clients_lock:
        if base_url not in _clients:
            # Past the library's singleton: that one is shared with whatever else uses yfinance.
            _clients[base_url] = type.__call__(_Client, _Session(base_url))
        return _clients[base_url]
