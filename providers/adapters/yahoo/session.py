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
from datetime import UTC, datetime
from urllib.parse import urlencode

import structlog
import yfinance
from curl_cffi.requests import Response
from django.conf import settings
from yfinance.data import YfData
from yfinance.exceptions import YFException

from providers.adapters.yahoo.batches import REST_S
from providers.adapters.yahoo.calls import AnsweredError, Call, CallSession, current_call
from providers.base import ProviderError, RawAnswer, upstream_error
from providers.http.client import check_unpacked, kept_headers, too_large
from providers.http.network import proxy_secrets, timed_out, to_provider_error
from providers.http.redaction import redact
from providers.http.transfer import TooLargeError, TransferError
from providers.rate_limits.outgoing import NotSentError, current_outgoing

log = structlog.get_logger(__name__)

# Where Yahoo gives no crumb, it is not asked again with each chart.
CRUMB_PAUSE_S = REST_S

# What a browser takes besides.
_BROWSER_CODINGS = ("br", "zstd")
_CRUMB = re.compile(r"[^\s<>{}]{1,64}")

# The library logs the crumb, and a warning for each cookie that it did not get; bs4, which reads
# Yahoo's consent page for it, one for each page that is empty.
for _name in ("yfinance", "bs4"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)
# No folder can be made there, so the library does without its files: each process has its own cookie.
yfinance.set_tz_cache_location(os.devnull)


def get(
    provider: str,
    symbols: tuple[str, ...],
    *,
    url: str,
    params: Mapping[str, str],
    needs_crumb: bool = False,
) -> RawAnswer:
    """Send one GET to Yahoo and read its answer within PROVIDER_TIMEOUT_S seconds, whatever its status.

    Cookie and crumb are fetched as needed, and are taken out of the answer.
    Raises ProviderTimeoutError at the deadline, ProviderError (upstream_error) where Yahoo cannot be
    reached, breaks off, or sends more than 1 MiB; NotSentError where the request did not go out.
    """
    call = Call(
        current_outgoing(provider),
        started=time.monotonic(),
        timeout_s=float(settings.PROVIDER_TIMEOUT_S),
        needs_crumb=needs_crumb,
    )
    response = _exchange(call, url, params)
    secrets = sorted({*call.secrets, *proxy_secrets()})
    check_unpacked(response, more=_BROWSER_CODINGS)
    return RawAnswer(
        provider=provider,
        symbols=symbols,
        url=f"{url}?{urlencode(params)}",
        status=response.status_code,
        headers=kept_headers(response.headers, secrets),
        body=redact(response.content, secrets),
        received_at=datetime.now(UTC),
        latency_ms=(time.monotonic() - call.started) * 1000,
    )


def forget_clients() -> None:
    """Begin anew: no cookie, no crumb, no connection, no lock that another thread holds."""
    global _clients, _clients_lock
    # Kept, not freed: freeing would end the parent process's TLS connections.
    _inherited.append(_clients)
    _clients, _clients_lock = {}, threading.Lock()


def _exchange(call: Call, url: str, params: Mapping[str, str]) -> Response:
    failure: Exception = upstream_error("the provider cannot be reached")
    client = _client(settings.YAHOO_BASE_URL)
    token = current_call.set(call)
    try:
        client.get(url, params=dict(params), timeout=call.timeout_s)
    except AnsweredError:
        pass
    except NotSentError as error:
        failure = error
    except (OSError, YFException) as error:
        failure = _reason(error, call) or failure
    finally:
        current_call.reset(token)
    if call.crumbs_refused > 1:
        # A new one did not help: each try costs three seconds of the budget.
        client.do_without_crumb()
    if call.response is None:
        raise failure
    return call.response


def _reason(error: Exception, call: Call) -> ProviderError | None:
    if isinstance(error, TransferError):
        return to_provider_error(error, timeout_s=call.timeout_s)
    if isinstance(error, TimeoutError):
        return timed_out(call.timeout_s)
    return too_large() if isinstance(error, TooLargeError) else None


class _DeadlineLock:
    """Waits for a thread that fetches the cookie no longer than this thread's own call may last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def acquire(self) -> None:
        if self._lock.acquire(blocking=False):
            return
        call = current_call.get()
        # Else that thread might wait for the room in the budget that this one holds.
        call.outgoing.give_back_permit()
        if not self._lock.acquire(timeout=max(0.0, call.cookie_deadline - time.monotonic())):
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

    def __init__(self, session: CallSession) -> None:
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
        if self._crumb is not None or current_call.get().needs_crumb or time.monotonic() >= self._next_try:
            crumb = self._crumb_or_none(timeout)
            if crumb is None:
                is_unwanted = current_call.get().outgoing.is_unwanted
                self.do_without_crumb(pause_s=0 if is_unwanted else CRUMB_PAUSE_S)
        return crumb, self._cookie_strategy

    def do_without_crumb(self, pause_s: float = CRUMB_PAUSE_S) -> None:
        """Ask for no crumb for so many seconds."""
        self._crumb = self._cookie = None
        self._next_try = time.monotonic() + pause_s

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
            _clients[base_url] = type.__call__(_Client, CallSession(base_url))
        return _clients[base_url]
