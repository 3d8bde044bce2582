"""The HTTP client of Alpha Vantage and Finnhub.

It talks to the host of the url and to no other (no redirects, no cookies), gives up at one deadline for
the whole answer, reads at most 1 MiB, and takes the key out of all that it returns.
"""

import os
import re
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import urlsplit

from curl_cffi.requests import Headers, Response
from django.conf import settings

from providers.base import ProviderError, RawAnswer, upstream_error
from providers.http.network import certificates, proxy_secrets, to_provider_error
from providers.http.redaction import redact, redact_text
from providers.http.transfer import TooLargeError, TransferError, TransferSession
from providers.rate_limits.outgoing import current_outgoing

_NOT_KEPT = frozenset({"set-cookie", "set-cookie2"})
_UNPACKED = frozenset({"", "identity", "gzip", "x-gzip", "deflate"})
_GZIP_MAGIC = b"\x1f\x8b"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


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
    the provider cannot be reached, breaks off, or sends more than 1 MiB; NotSentError where nobody wants
    it any more.
    """
    secrets = [*(secret_params or {}).values(), *(secret_headers or {}).values(), *proxy_secrets()]
    started = time.monotonic()
    response = _exchange(provider, url, secret_params, secret_headers)
    check_unpacked(response)
    return RawAnswer(
        provider=provider,
        symbols=symbols,
        url=public_url(url),
        status=response.status_code,
        headers=kept_headers(response.headers, secrets),
        body=redact(response.content, secrets),
        received_at=datetime.now(UTC),
        latency_ms=(time.monotonic() - started) * 1000,
    )


def public_url(url: str) -> str:
    """Return the url without a user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def kept_headers(headers: Mapping[str, str | None], secrets: Sequence[str]) -> dict[str, str]:
    """Return the headers of an answer with lower-case names, redacted, without cookies."""
    return {
        redact_text(name.lower(), secrets): redact_text(value or "", secrets)
        for name, value in headers.items()
        if name.lower() not in _NOT_KEPT
    }


def check_unpacked(response: Response, *, more: Collection[str] = ()) -> None:
    """Raise ProviderError (upstream_error) where the body is still compressed: it may hold a key.

    `more` are the codings besides gzip and deflate that libcurl was asked to unpack.
    """
    coding = response.headers.get("content-encoding") or ""
    codings = {name.strip().lower() for name in coding.split(",")}
    # What came may be nothing once it is unpacked.
    is_packed = bool(response.download_size) and not codings <= _UNPACKED.union(more)
    if is_packed or response.content.startswith(_GZIP_MAGIC):
        raise upstream_error("the answer cannot be decompressed")


def too_large() -> ProviderError:
    """Return the error of an answer that is cut off."""
    return upstream_error("the answer is larger than 1 MiB")


def _exchange(
    provider: str, url: str, params: Mapping[str, str] | None, headers: Mapping[str, str] | None
) -> Response:
    timeout_s = float(settings.PROVIDER_TIMEOUT_S)
    if any(_CONTROL.search(value) for value in (headers or {}).values()):
        raise upstream_error("the key cannot be sent: it has a control character")
    try:
        return _session().transfer(
            "GET",
            url,
            deadline=time.monotonic() + timeout_s,
            before_sending=current_outgoing(provider).check,
            proxy=settings.PROVIDER_PROXY,
            verify=certificates(),
            accept_encoding="gzip, deflate",
            params=dict(params or {}),
            headers=Headers(dict(headers or {}), encoding="utf-8"),
        )
    except TransferError as error:
        failure = to_provider_error(error, timeout_s=timeout_s)
    except TooLargeError:
        failure = too_large()
    raise failure


def _session() -> TransferSession:
    global _own_session
    if _own_session is None:
        _own_session = TransferSession(
            headers={"User-Agent": "marketdata", "Accept": "*/*"}, discard_cookies=True
        )
    return _own_session


def _forget_session() -> None:
    global _own_session
    # Kept, not freed: freeing would end the parent process's TLS connections.
    _inherited.append(_own_session)
    _own_session = None


_own_session: TransferSession | None = None
_inherited: list[TransferSession | None] = []
# Two processes on one connection would read each other's answers.
os.register_at_fork(after_in_child=_forget_session)
