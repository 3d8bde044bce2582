"""The way to the providers: proxy and certificates by the settings, and how a failure on it is told."""

import functools
import os
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

import certifi
from django.conf import settings

from providers.base import ErrorKind, ProviderError, ProviderTimeoutError, upstream_error
from providers.http.transfer import Phase, TransferError

_TIMED_OUT = "no answer within"
_PROXY_VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_BEFORE_THE_PROVIDER = frozenset({Phase.NAME, Phase.CONNECTION})


def proxy_secrets() -> list[str]:
    """Return the password of PROVIDER_PROXY, as it is sent and as it is written in the url."""
    password = urlsplit(settings.PROVIDER_PROXY).password
    return [unquote(password), password] if password else []


def certificates() -> str:
    """Return the path of a file of what is trusted: the public certificates, and PROVIDER_CA_FILE's."""
    if not settings.PROVIDER_CA_FILE:
        return certifi.where()
    path = _bundle(settings.PROVIDER_CA_FILE)
    # Whatever tidies up a temporary folder may take it away.
    if not path.exists():
        _bundle.cache_clear()
        path = _bundle(settings.PROVIDER_CA_FILE)
    return str(path)


def to_provider_error(error: TransferError, *, timeout_s: float) -> ProviderError:
    """Return what a transfer without an answer is for whoever asked: which phase, and what could be set."""
    if error.is_timeout:
        return timed_out(timeout_s, error.phase)
    if error.is_packed:
        return upstream_error("the answer cannot be decompressed")
    if error.phase in {Phase.WAITING, Phase.BODY}:
        return upstream_error(_what_came(error))
    return upstream_error(f"{_whom(error.phase)} cannot be reached: {_why(error)}{_hint(error.phase)}")


def timed_out(timeout_s: float, phase: Phase = Phase.WAITING) -> ProviderTimeoutError:
    """Return the error of an answer that did not come in time."""
    text = f"{_TIMED_OUT} {timeout_s:g} s ({phase}){_hint(phase)}"
    return ProviderTimeoutError(kind=ErrorKind.UPSTREAM_ERROR, message=text)


def is_time_out(message: str) -> bool:
    """Return whether the message of an error says that there was no answer in time."""
    return message.startswith(_TIMED_OUT)


def _what_came(error: TransferError) -> str:
    if error.is_no_http:
        return "the answer is not HTTP"
    if error.has_large_headers:
        return "the answer has more or larger headers than are read"
    return f"the provider broke off its answer ({error.phase})"


def _whom(phase: Phase) -> str:
    is_proxy = settings.PROVIDER_PROXY and phase in _BEFORE_THE_PROVIDER
    return "the proxy of PROVIDER_PROXY" if is_proxy else "the provider"


def _why(error: TransferError) -> str:
    if error.is_untrusted:
        return "its certificate is not trusted (a company's own CA goes into PROVIDER_CA_FILE)"
    if error.phase == Phase.PROXY and error.proxy_status:
        return f"the proxy of PROVIDER_PROXY refuses it (HTTP {error.proxy_status})"
    return f"{error.phase} failed"


def _hint(phase: Phase) -> str:
    if settings.PROVIDER_PROXY or phase not in {*_BEFORE_THE_PROVIDER, Phase.TLS}:
        return ""
    names = (name for name in _PROXY_VARIABLES if os.environ.get(name) or os.environ.get(name.lower()))
    unread = next(names, None)
    if unread:
        return f"; {unread} is not read: set PROVIDER_PROXY"
    return "; where a proxy is needed, set PROVIDER_PROXY"


@functools.lru_cache(maxsize=4)
def _bundle(own_file: str) -> Path:
    folder = tempfile.TemporaryDirectory(prefix="marketdata-ca-")
    # Removed when the process ends.
    _folders.append(folder)
    path = Path(folder.name) / "certificates.pem"
    path.write_bytes(Path(certifi.where()).read_bytes() + b"\n" + Path(own_file).read_bytes())
    return path


_folders: list[tempfile.TemporaryDirectory[str]] = []
