"""One deadline for the whole of a request, told by phase; and nothing sent that nobody wants any more."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from pytest_django import Settings

from providers.adapters.yahoo import session as yahoo_session
from providers.adapters.yahoo.adapter import Yahoo
from providers.base import ErrorKind, ProviderError, ProviderTimeoutError, RawAnswer, Request
from providers.http import client as http
from providers.rate_limits.outgoing import NotSentError, Outgoing, sending
from tests.providers.raw_server import drip, raw_server
from tests.providers.shared_scope import granted_soon

Fetch = Callable[[str], RawAnswer]


def fetch_by_http(url: str) -> RawAnswer:
    return http.get("finnhub", ("AAPL",), url=url)


def fetch_by_yahoo(url: str) -> RawAnswer:
    return Yahoo().fetch(Request("chart", ("AAPL",)))


@pytest.fixture(params=[fetch_by_http, fetch_by_yahoo])
def fetch(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Fetch]:
    """Yield each client in turn, as a function of the address of a local server."""
    # Yahoo's cookie and crumb take half of it, and wait for the budget.
    settings.PROVIDER_TIMEOUT_S = 0.5

    def fetch_from(url: str) -> RawAnswer:
        settings.YAHOO_BASE_URL = url
        found: RawAnswer = request.param(url)
        return found

    yield fetch_from
    http._forget_session()
    yahoo_session.forget_clients()


def failure_of(fetch: Fetch, url: str) -> ProviderError:
    started = time.monotonic()
    with pytest.raises(ProviderError) as caught:
        fetch(url)
    assert time.monotonic() - started < 2
    assert caught.value.kind == ErrorKind.UPSTREAM_ERROR
    return caught.value


@contextmanager
def full_backlog() -> Iterator[str]:
    """Yield the address of a server whose queue of connections is full: no further one gets an answer."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        for client in waiting:
            client.close()


silence = partial(raw_server, partial(drip, start=b"", piece=b""))
dripping_body = partial(raw_server, partial(drip, start=b"HTTP/1.1 200 OK\r\n\r\n", piece=b"x"))


@contextmanager
def silent_tls() -> Iterator[str]:
    with silence() as url:
        yield url.replace("http:", "https:")


@pytest.mark.parametrize(
    ("server", "phase"),
    [
        (full_backlog, "connection"),
        (silent_tls, "TLS"),
        (silence, "waiting"),
        (dripping_body, "body"),
    ],
)
def test_time_out_names_the_phase(fetch: Fetch, server: Callable[[], Iterator[str]], phase: str) -> None:
    with server() as url:  # type: ignore[attr-defined]  # each is a context manager
        error = failure_of(fetch, url)
    assert isinstance(error, ProviderTimeoutError)
    assert error.message.startswith(f"no answer within 0.5 s ({phase})")


# In a network of its own, whose only name server takes every question and answers none.
NAME_SERVER_THAT_HANGS = """
import fcntl, socket, struct, sys, time
questions = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
LOOPBACK_UP = struct.pack("16sh", b"lo", 0x41)
fcntl.ioctl(questions, 0x8914, LOOPBACK_UP)
questions.bind(("127.0.0.53", 53))
import django
django.setup()
from django.conf import settings
from providers.base import ProviderError, Request
from providers.registry import get_provider
settings.FINNHUB_BASE_URL = settings.YAHOO_BASE_URL = "http://hangs.example"
settings.FINNHUB_API_KEY = "a-key-of-length"
settings.PROVIDER_TIMEOUT_S = 1
for provider, call in (("finnhub", "quote"), ("yfinance", "chart")):
    adapter = get_provider(provider)
    started = time.monotonic()
    try:
        adapter.fetch(Request(call, ("AAPL",)))
    except ProviderError as error:
        print(error.message, file=sys.stderr)
assert questions.recv(512)
print("asked", time.monotonic(), file=sys.stderr)
"""


def test_name_that_hangs_ends_at_the_deadline(tmp_path: Path) -> None:
    alone = ["unshare", "--map-root-user", "--net", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], check=False).returncode:
        pytest.skip("this machine lets no user make a network")
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.53\noptions timeout:30 attempts:1\n")
    script = f'mount --bind {tmp_path}/resolv.conf /etc/resolv.conf && exec "$0" -c "$1"'
    command = [*alone, "sh", "-c", script, sys.executable, NAME_SERVER_THAT_HANGS]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    ended_at = time.monotonic()
    *told, asked = (line for line in ended.stderr.splitlines() if line.startswith(("no answer", "asked")))
    hint = "; where a proxy is needed, set PROVIDER_PROXY"
    assert told == [f"no answer within 1 s (name lookup){hint}"] * 2, ended.stderr
    # The look-ups go on for 30 s, and hold up no process that ends.
    assert ended_at - float(asked.removeprefix("asked ")) < 25


def connected_late(delay_s: float, requests: list[bytes]) -> Callable[[socket.socket, object], None]:
    """Return a proxy that takes its time until it says that there is a connection."""

    def serve(connection: socket.socket, _: object) -> None:
        time.sleep(delay_s)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        requests.append(connection.recv(65536))

    return serve


def test_request_that_nobody_wants_once_there_is_a_connection_is_not_sent(
    fetch: Fetch, settings: Settings
) -> None:
    settings.PROVIDER_TIMEOUT_S = 5
    requests: list[bytes] = []
    with raw_server(connected_late(0.5, requests)) as proxy:
        settings.PROVIDER_PROXY = proxy
        with sending(Outgoing(granted_soon("yfinance"), is_wanted=lambda: False)) as outgoing:
            with pytest.raises(NotSentError):
                fetch("http://provider.example")
            outgoing.cancel()
    assert set(requests) == {b""}
