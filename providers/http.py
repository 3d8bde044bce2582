"""The HTTP client of Alpha Vantage and Finnhub.

It talks to the host of the url and to no other (no redirects, no proxies, no cookies), gives up at
one deadline for the whole answer, reads at most 1 MiB, and takes the key out of all that it returns.
"""

import io
import logging
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from http.client import HTTPResponse
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import requests
from django.conf import settings
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from providers.base import ErrorKind, ProviderError, ProviderTimeoutError, RawAnswer, upstream_error
from providers.redaction import redact, redact_text

MAX_BODY_BYTES = 1024 * 1024
# For each address of the host: it may have three, and all together should leave time for an answer.
CONNECT_TIMEOUT_S = 3.0

_CHUNK_BYTES = 64 * 1024
_NOT_KEPT = frozenset({"set-cookie", "set-cookie2"})
_UNPACKED = frozenset({"", "identity", "gzip", "x-gzip", "deflate"})
_GZIP_MAGIC = b"\x1f\x8b"

# urllib3 logs the path of a request, and in it the key, at DEBUG and beside broken headers.
for _name in ("urllib3.connection", "urllib3.connectionpool"):
    logging.getLogger(_name).addFilter(lambda _: False)


def get(
    provider: str,
    symbols: tuple[str, ...],
    *,
    url: str,
    secret_params: Mapping[str, str] | None = None,
    secret_headers: Mapping[str, str] | None = None,
) -> RawAnswer:
    """Send one GET and read its answer within PROVIDER_TIMEOUT_S seconds, whatever its status.

    `url` holds no secret; what is in `secret_params` and `secret_headers` is sent, and is taken out
    of the answer. Raises ProviderTimeoutError at the deadline, ProviderError (upstream_error) where
    the provider cannot be reached, breaks off, or sends more than 1 MiB.
    """
    secrets = [*(secret_params or {}).values(), *(secret_headers or {}).values()]
    started = time.monotonic()
    response, body = _exchange(url, secret_params, secret_headers)
    check_unpacked(body, coding=response.headers.get("content-encoding", ""))
    return RawAnswer(
        provider=provider,
        symbols=symbols,
        url=public_url(url),
        status=response.status_code,
        headers=kept_headers(response.headers, secrets),
        body=redact(body, secrets),
        received_at=datetime.now(UTC),
        latency_ms=(time.monotonic() - started) * 1000,
    )


def public_url(url: str) -> str:
    """Give the url without a user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def kept_headers(headers: Mapping[str, str], secrets: Sequence[str]) -> dict[str, str]:
    """Give the headers of an answer with lower-case names, redacted, without cookies."""
    return {
        redact_text(name.lower(), secrets): redact_text(value, secrets)
        for name, value in headers.items()
        if name.lower() not in _NOT_KEPT
    }


def check_unpacked(body: bytes, *, coding: str = "") -> None:
    """Refuse a body that is still compressed: no key can be taken out of it.

    `coding` is the header Content-Encoding, where the library passes on what it cannot unpack. Raises
    ProviderError (upstream_error).
    """
    codings = {name.strip().lower() for name in coding.split(",")}
    if body.startswith(_GZIP_MAGIC) or (body and not codings <= _UNPACKED):
        raise _packed()


def _packed() -> ProviderError:
    return upstream_error("the answer cannot be decompressed")


def _exchange(
    url: str, params: Mapping[str, str] | None, headers: Mapping[str, str] | None
) -> tuple[requests.Response, bytes]:
    timeout_s = float(settings.PROVIDER_TIMEOUT_S)
    token = _deadline.set(time.monotonic() + timeout_s)
    try:
        with _session().get(
            url,
            params=params,
            # As bytes: what Latin-1 cannot write is then refused by the provider, and not here.
            headers={name: value.encode() for name, value in (headers or {}).items()},
            timeout=(min(CONNECT_TIMEOUT_S, timeout_s), timeout_s),
            stream=True,
        ) as response:
            return response, _read_body(response)
    except (OSError, HTTPError) as error:
        failure = _failure(error, timeout_s)
    finally:
        _deadline.reset(token)
    # Not raised inside the except block: the libraries' errors hold the url, and in it the key.
    raise failure


def _read_body(response: requests.Response) -> bytes:
    body = bytearray()
    # The size after decompression counts: a kilobyte can unpack into a megabyte.
    for chunk in response.iter_content(_CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise upstream_error("the answer is larger than 1 MiB")
    return bytes(body)


def _failure(error: OSError | HTTPError, timeout_s: float) -> ProviderError:
    if isinstance(error, requests.Timeout) or time.monotonic() >= _deadline.get():
        return timed_out(timeout_s)
    if isinstance(error, requests.exceptions.ContentDecodingError):
        return _packed()
    return upstream_error("the provider cannot be reached, or broke off its answer")


def timed_out(timeout_s: float) -> ProviderTimeoutError:
    """Give the error of an answer that did not come in time."""
    return ProviderTimeoutError(kind=ErrorKind.UPSTREAM_ERROR, message=f"no answer within {timeout_s:g} s")


# When the request of this thread ends, by the monotonic clock.
_deadline: ContextVar[float] = ContextVar("deadline")


class _DeadlineReader(io.RawIOBase):
    """Reads from a socket until the deadline, however slowly the bytes drip."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        remaining = _deadline.get() - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        self._sock.settimeout(remaining)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        # A read time-out starts anew with each byte, in the headers as well as in the body.
        self.fp = io.BufferedReader(_DeadlineReader(self.fp.detach(), sock))


class _HTTPConnection(HTTPConnection):
    response_class = _Response


class _HTTPSConnection(HTTPSConnection):
    response_class = _Response


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}


class _Session(requests.Session):
    def __init__(self) -> None:
        super().__init__()
        # Else a proxy or a .netrc of the environment would see the keys.
        self.trust_env = False
        self.headers.update({"User-Agent": "marketdata", "Accept-Encoding": "gzip, deflate"})
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.mount("https://", _Adapter())
        self.mount("http://", _Adapter())

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        # Not only allow_redirects=False: with that the body of a redirect is read without any limit.
        return None


_sessions = threading.local()


def _session() -> requests.Session:
    # One for each thread: requests does not promise that threads can share one.
    if not hasattr(_sessions, "session"):
        _sessions.session = _Session()
    session: requests.Session = _sessions.session
    return session


def _forget_sessions() -> None:
    global _sessions
    _sessions = threading.local()


# Two processes on one connection would read each other's answers.
os.register_at_fork(after_in_child=_forget_sessions)
