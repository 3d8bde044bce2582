"""The HTTP client: one deadline, one host, one mebibyte, and no key in anything it gives back."""

import gzip
import logging
import os
import socket
import threading
import time
import traceback
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest
from pytest_django import Settings
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from providers.base import ErrorKind, ProviderError, ProviderTimeoutError, RawAnswer
from providers.http import client as http
from providers.http.transfer import MAX_BODY_BYTES
from tests.providers.raw_server import drip, raw_server

KEY = "CANARY/KEY+é1234"
OK = b"HTTP/1.1 200 OK\r\n"
BROKE_OFF = "the provider broke off its answer"
LARGE_HEADERS = "the answer has more or larger headers than are read"


@pytest.fixture(autouse=True)
def _short_timeout(settings: Settings) -> None:
    settings.PROVIDER_TIMEOUT_S = 0.4


def fetch(url: str) -> RawAnswer:
    return http.get(
        "finnhub",
        ("AAPL",),
        url=url,
        secret_params={"apikey": KEY},
        secret_headers={"X-Finnhub-Token": KEY},
    )


def failure_of(url: str) -> ProviderError:
    """Return the error of a fetch that fails, after looking for the key in all that it holds."""
    with pytest.raises(ProviderError) as caught:
        fetch(url)
    error = caught.value
    assert error.kind == ErrorKind.UPSTREAM_ERROR
    assert error.__context__ is error.__cause__ is None
    assert_keyless("".join(traceback.format_exception(error)) + repr(error))
    return error


def assert_keyless(text: str) -> None:
    for form in (KEY, quote(KEY), quote(KEY, safe="")):
        assert form.lower() not in text.lower()


def test_answer_is_given_whole(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/quote").respond_with_data(
        b'{"c":1}', status=403, headers={"Retry-After": "17"}
    )
    began = time.monotonic()
    answer = fetch(httpserver.url_for("/quote?symbol=AAPL"))
    took_ms = (time.monotonic() - began) * 1000
    assert (answer.provider, answer.symbols, answer.status) == ("finnhub", ("AAPL",), 403)
    assert answer.body == b'{"c":1}'
    assert answer.headers["retry-after"] == "17"
    assert answer.url == httpserver.url_for("/quote?symbol=AAPL")
    assert 0 < answer.latency_ms <= took_ms


def test_answer_in_gzip_is_unpacked(httpserver: HTTPServer) -> None:
    headers = {"Content-Encoding": "gzip"}
    httpserver.expect_request("/").respond_with_data(gzip.compress(b'{"c":1}'), headers=headers)
    assert fetch(httpserver.url_for("/")).body == b'{"c":1}'


@pytest.mark.parametrize("coding", [None, "br", "gzip, x-unknown", "gzip"])
def test_answer_that_stays_packed_is_refused(httpserver: HTTPServer, coding: str | None) -> None:
    body = gzip.compress(f'{{"echo": "{KEY}"}}'.encode())
    if coding == "gzip":
        body = gzip.compress(body)
    headers = {"Content-Encoding": coding} if coding else {}
    httpserver.expect_request("/").respond_with_data(body, headers=headers)
    assert failure_of(httpserver.url_for("/")).message == "the answer cannot be decompressed"


def test_empty_answer_of_any_coding_is_given(httpserver: HTTPServer) -> None:
    headers = {"Content-Encoding": "x-unknown"}
    httpserver.expect_request("/").respond_with_data(b"", status=403, headers=headers)
    assert fetch(httpserver.url_for("/")).status == 403


def test_name_of_a_header_repeats_no_key(httpserver: HTTPServer) -> None:
    headers = {f"X-{quote(KEY, safe='')}": "1"}
    httpserver.expect_request("/").respond_with_data(b"", headers=headers)
    assert fetch(httpserver.url_for("/")).headers["x-[redacted]"] == "1"


def test_answer_repeats_no_key(httpserver: HTTPServer, caplog: pytest.LogCaptureFixture) -> None:
    def echo(request: Request) -> Response:
        key = request.args["apikey"]
        headers = {"X-Echo": quote(key), "Location": request.url, "Set-Cookie": f"key={quote(key)}"}
        return Response(f"{key} {quote(key, safe='')} {request.url}", status=302, headers=headers)

    httpserver.expect_request("/").respond_with_handler(echo)
    with caplog.at_level(logging.DEBUG):
        answer = fetch(httpserver.url_for("/"))
    assert answer.status == 302
    assert_keyless(repr(answer) + answer.body.decode() + caplog.text)
    assert answer.headers["x-echo"] == "[redacted]"
    assert "set-cookie" not in answer.headers


def test_key_that_no_header_can_hold_is_sent_all_the_same(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/").respond_with_data(b"", status=401)
    url = httpserver.url_for("/")
    assert (
        http.get("finnhub", ("AAPL",), url=url, secret_headers={"X-Finnhub-Token": "ключ-1234"}).status == 401
    )
    with pytest.raises(ProviderError) as caught:
        http.get("finnhub", ("AAPL",), url=url, secret_headers={"X-Finnhub-Token": "line\nbreak"})
    assert "line" not in repr(caught.value)


def test_user_and_password_of_the_address_are_not_in_the_answer(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/").respond_with_data(b"")
    url = httpserver.url_for("/")
    assert fetch(url.replace("http://", "http://user:password@")).url == url


def test_redirect_is_an_answer(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/").respond_with_data(b"moved", status=301, headers={"Location": "/elsewhere"})
    answer = fetch(httpserver.url_for("/"))
    assert (answer.status, answer.body) == (301, b"moved")
    assert len(httpserver.log) == 1


def test_redirect_with_an_endless_body_is_cut_off() -> None:
    start = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n"
    with raw_server(partial(drip, start=start, piece=b"x" * 700_000)) as url:
        assert "larger than 1 MiB" in failure_of(url).message


def test_cookie_is_not_sent_back(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/").respond_with_data(b"", headers={"Set-Cookie": "a=b"})
    for _ in range(2):
        fetch(httpserver.url_for("/"))
    assert "Cookie" not in httpserver.log[1][0].headers


def test_proxy_and_netrc_of_the_environment_are_not_used(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login user password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    httpserver.expect_request("/").respond_with_data(b"direct")
    assert fetch(httpserver.url_for("/")).body == b"direct"
    assert "Authorization" not in httpserver.log[0][0].headers


def test_larger_than_a_mebibyte_is_refused(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/").respond_with_data(b"x" * (MAX_BODY_BYTES + 1))
    assert "larger than 1 MiB" in failure_of(httpserver.url_for("/")).message


def test_a_mebibyte_is_read(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/").respond_with_data(b"x" * MAX_BODY_BYTES)
    assert len(fetch(httpserver.url_for("/")).body) == MAX_BODY_BYTES


def test_gzip_bomb_is_refused(httpserver: HTTPServer) -> None:
    bomb = gzip.compress(b"\0" * 30_000_000)
    httpserver.expect_request("/").respond_with_data(bomb, headers={"Content-Encoding": "gzip"})
    started = time.process_time()
    assert "larger than 1 MiB" in failure_of(httpserver.url_for("/")).message
    assert time.process_time() - started < 0.5


def test_gzip_that_is_none_is_refused(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/").respond_with_data(b"text", headers={"Content-Encoding": "gzip"})
    assert "decompressed" in failure_of(httpserver.url_for("/")).message


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"", b""),
        (b"HTTP/1.1 200", b" "),
        (OK, b"X-Header: x\r\n"),
        (OK, b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (OK + b"\r\n", b"x"),
        (OK + b"Content-Length: 1000000\r\n\r\n", b"x"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
        (OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"")[:10], b""),
    ],
    ids=[
        "silence",
        "status",
        "headers",
        "header",
        "continue",
        "body",
        "length",
        "chunks",
        "chunk-size",
        "gzip",
    ],
)
def test_slow_answer_ends_at_the_deadline(start: bytes, piece: bytes) -> None:
    with raw_server(partial(drip, start=start, piece=piece)) as url:
        started = time.monotonic()
        error = failure_of(url)
    assert isinstance(error, ProviderTimeoutError)
    assert error.message in {"no answer within 0.4 s (waiting)", "no answer within 0.4 s (body)"}
    assert 0.35 < time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"", f"{BROKE_OFF} (waiting)"),
        (b"\x00\xff\r\n\r\n", "the answer is not HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 6000 + b"\r\n", LARGE_HEADERS),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 400_000 + b"\r\n\r\n", LARGE_HEADERS),
        (OK + b"Content-Length: 10\r\n\r\nshort", f"{BROKE_OFF} (body)"),
        (OK + b"Content-Length: x\r\n\r\n", "the answer is not HTTP"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", f"{BROKE_OFF} (body)"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab", f"{BROKE_OFF} (body)"),
    ],
    ids=["nothing", "binary", "ssh", "many-headers", "long-header", "short", "length", "chunk-size", "chunk"],
)
def test_answer_that_is_no_http_is_an_upstream_error(reply: bytes, message: str) -> None:
    with raw_server(lambda connection, _: connection.sendall(reply)) as url:
        assert failure_of(url).message == message


def test_broken_headers_leave_no_key_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    reply = OK + b"Content-Length: 2\r\nno header at all\r\nX: y\r\n\r\n{}"
    with raw_server(lambda connection, _: connection.sendall(reply)) as url, caplog.at_level(logging.DEBUG):
        try:
            fetch(url)
        except ProviderError as error:
            assert_keyless(repr(error))
    assert_keyless(caplog.text)


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def test_refused_connection_is_an_upstream_error(closed_port: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        assert "cannot be reached" in failure_of(f"http://127.0.0.1:{closed_port}/query").message
    assert_keyless(caplog.text)


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1", "ftp://127.0.0.1/", "http://", "http://[", "http://a..b/", "http://\x00/"]
)
def test_address_that_is_none_is_an_upstream_error(url: str) -> None:
    assert "cannot be reached" in failure_of(url).message


def test_connection_is_used_again() -> None:
    connections: list[int] = []

    def serve(connection: socket.socket, over: threading.Event) -> None:
        connections.append(connection.fileno())
        connection.sendall(OK + b"Content-Length: 2\r\n\r\n{}")
        while not over.is_set() and connection.recv(65536):
            connection.sendall(OK + b"Content-Length: 2\r\n\r\n{}")

    with raw_server(serve) as url:
        for _ in range(3):
            assert fetch(url).body == b"{}"
        assert len(connections) == 1
        http._session().close()
        http._forget_session()


def test_request_on_a_connection_that_breaks_is_sent_once() -> None:
    requests: list[bytes] = []

    def serve(connection: socket.socket, _: threading.Event) -> None:
        connection.sendall(OK + b"Content-Length: 2\r\n\r\n{}")
        requests.append(connection.recv(65536))

    with raw_server(serve) as url:
        assert fetch(url).status == 200
        assert failure_of(url).message == "the provider broke off its answer (waiting)"
        http._session().close()
        http._forget_session()
    # On the next connection nothing came, and it may be gone before it is looked at.
    assert requests[0].startswith(b"GET ")
    assert set(requests[1:]) <= {b""}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_connection_is_not_shared_with_a_child_process(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/").respond_with_data(b"{}")
    fetch(httpserver.url_for("/"))
    session = http._session()
    child = os.fork()
    if child == 0:
        os._exit(0 if http._session() is not session else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert http._session() is session
