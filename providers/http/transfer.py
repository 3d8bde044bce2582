"""One request by libcurl: one deadline for all of it, at most 1 MiB, and a last look just before it goes out.

The deadline covers the look-up of the name, the connection, a proxy, TLS, and the last byte of the body;
after it nothing is sent. Of the environment nothing is used: no proxy, no .netrc, no certificates.

TransferError           there is no whole answer; `phase` is where it ended
"""

import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from curl_cffi import CurlECode, CurlInfo, CurlOpt

# The library passes on no option that is a function.
from curl_cffi._wrapper import ffi, lib
from curl_cffi.requests import Response, Session
from curl_cffi.requests.exceptions import RequestException

MAX_BODY_BYTES = 1024 * 1024

_INFOS = (
    CurlInfo.NAMELOOKUP_TIME,
    CurlInfo.NUM_CONNECTS,
    CurlInfo.HTTP_CONNECTCODE,
    CurlInfo.HEADER_SIZE,
)
_NO_HTTP = frozenset({CurlECode.UNSUPPORTED_PROTOCOL, CurlECode.WEIRD_SERVER_REPLY})
_UNTRUSTED = frozenset({CurlECode.PEER_FAILED_VERIFICATION, CurlECode.SSL_CACERT_BADFILE})


class Phase(StrEnum):
    """What a request was busy with."""

    NAME = "name lookup"
    CONNECTION = "connection"
    PROXY = "proxy"
    TLS = "TLS"
    WAITING = "waiting"
    BODY = "body"


class TransferError(OSError):
    """There is no whole answer. Holds no text of the library's, which repeats the url."""

    def __init__(
        self,
        phase: Phase,
        *,
        is_timeout: bool = False,
        is_untrusted: bool = False,
        is_packed: bool = False,
        is_no_http: bool = False,
        has_large_headers: bool = False,
        proxy_status: int = 0,
    ) -> None:
        super().__init__(str(phase))
        self.phase = phase
        self.is_timeout = is_timeout
        self.is_untrusted = is_untrusted
        self.is_packed = is_packed
        self.is_no_http = is_no_http
        self.has_large_headers = has_large_headers
        self.proxy_status = proxy_status


class TooLargeError(OSError):
    """The answer has more than 1 MiB, after decompression."""


@dataclass(slots=True)
class _Transfer:
    before_sending: Callable[[], None]
    has_begun: bool = False
    refusal: BaseException | None = None
    body: bytearray = field(default_factory=bytearray)

    def begin(self) -> bool:
        # libcurl would send it again where a connection that was used before closes: a second request.
        if self.has_begun:
            return False
        # An exception cannot pass through libcurl.
        try:
            self.before_sending()
        except BaseException as error:  # noqa: BLE001
            self.refusal = error
            return False
        self.has_begun = True
        return True

    def collect(self, chunk: bytes) -> int:
        self.body += chunk
        if len(self.body) > MAX_BODY_BYTES:
            raise TooLargeError
        return len(chunk)


# What this thread's libcurl is busy with.
_current: ContextVar[_Transfer] = ContextVar("transfer")


@ffi.callback("int(void *, char *, char *, int, int)")  # type: ignore[untyped-decorator]  # cffi has no types
def _connected(*_: object) -> int:
    # CURLOPT_PREREQFUNCTION: there is a connection, and nothing of the request has been sent.
    return 0 if _current.get().begin() else 1


class TransferSession(Session[Response]):
    """Connections that are used again, one or more for each thread."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            trust_env=False,
            allow_redirects=False,
            curl_infos=list(_INFOS),
            # Else a name that is still looked up would hold up the end of the process.
            curl_options={CurlOpt.QUICK_EXIT: 1, CurlOpt.SUPPRESS_CONNECT_HEADERS: 1},
            **options,
        )

    def transfer(
        self,
        method: Any,
        url: str,
        *,
        deadline: float,
        before_sending: Callable[[], None],
        proxy: str = "",
        **options: Any,
    ) -> Response:
        """Send one request and read its answer, by `deadline` on the monotonic clock.

        `before_sending` is called once there is a connection; what it raises is raised here, and nothing was
        sent. Raises TransferError, TooLargeError.
        """
        remaining = deadline - time.monotonic()
        # Below a millisecond curl would wait without end.
        if remaining < 0.001:
            raise TransferError(Phase.NAME, is_timeout=True)
        transfer = _Transfer(before_sending)
        token = _current.set(transfer)
        try:
            self._prepare(proxy)
            response = super().request(
                method, url, timeout=remaining, content_callback=transfer.collect, **options
            )
        except RequestException as error:
            failure = transfer.refusal or _failure(error, transfer, has_proxy=bool(proxy))
        except ValueError:
            # An address that is none.
            failure = TransferError(Phase.NAME)
        else:
            response.content = bytes(transfer.body)
            return response
        finally:
            _current.reset(token)
        # Not raised inside the except block: the library's errors hold the url, and in it the key.
        raise failure

    def _prepare(self, proxy: str) -> None:
        # An empty one is none, whatever the environment says.
        self.curl.setopt(CurlOpt.PROXY, proxy)
        self.curl.setopt(CurlOpt.NOPROXY, "")
        # For http as well: a proxy sees the names of hosts, and no keys.
        self.curl.setopt(CurlOpt.HTTPPROXYTUNNEL, 1)
        lib._curl_easy_setopt(self.curl._curl, CurlOpt.PREREQFUNCTION, _connected)


def _failure(error: RequestException, transfer: _Transfer, *, has_proxy: bool) -> TransferError:
    infos: dict[Any, Any] = getattr(error.response, "infos", {})
    phase = _phase(infos, transfer, has_proxy=has_proxy)
    return TransferError(
        phase,
        is_timeout=error.code == CurlECode.OPERATION_TIMEDOUT,
        is_untrusted=error.code in _UNTRUSTED,
        is_packed=error.code == CurlECode.BAD_CONTENT_ENCODING,
        is_no_http=error.code in _NO_HTTP,
        has_large_headers=error.code == CurlECode.TOO_LARGE,
        proxy_status=infos.get(CurlInfo.HTTP_CONNECTCODE, 0) if phase == Phase.PROXY else 0,
    )


def _phase(infos: dict[Any, Any], transfer: _Transfer, *, has_proxy: bool) -> Phase:
    if transfer.has_begun:
        return Phase.BODY if infos.get(CurlInfo.HEADER_SIZE) else Phase.WAITING
    if not infos.get(CurlInfo.NUM_CONNECTS):
        return Phase.CONNECTION if infos.get(CurlInfo.NAMELOOKUP_TIME) else Phase.NAME
    if has_proxy and infos.get(CurlInfo.HTTP_CONNECTCODE, 0) // 100 != 2:
        return Phase.PROXY
    return Phase.TLS
