"""Whatever comes over the wire, by each adapter: one error, in time, and the next request works."""

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from pytest_django import Settings

from providers.adapters.yahoo import session as yahoo_session
from providers.base import ErrorKind, ProviderError, Quote
from providers.http import client as http
from tests.providers.raw_server import raw_server
from tests.providers.yahoo_bodies import ROW, chart_body
from tests.simulator import ask

PROVIDERS = ("alpha_vantage", "finnhub", "yfinance")
KEY = "canary-key-of-the-wire"
PRICE = "150.25"
MALFORMED, UPSTREAM_ERROR = ErrorKind.MALFORMED, ErrorKind.UPSTREAM_ERROR
BROKE_OFF = "the provider broke off its answer (body)"
LARGE_HEADERS = "the answer has more or larger headers than are read"
TOO_LARGE = "the answer is larger than 1 MiB"
PACKED = "the answer cannot be decompressed"
NO_HTTP = "the answer is not HTTP"
NO_JSON = "the answer is not JSON"
MIB = 1024 * 1024


def body_of(provider: str, price: str = PRICE) -> bytes:
    """Return a quote of AAPL in the provider's own form, with this text for its price."""
    if provider == "finnhub":
        return f'{{"c":{price},"t":1739566800}}'.encode()
    if provider == "yfinance":
        return json.dumps(chart_body(ROW)).replace("244.6", price).encode()
    quote = {"01. symbol": "AAPL", "05. price": price, "07. latest trading day": "2025-02-14"}
    return json.dumps({"Global Quote": quote}).encode()


def reply(body: bytes, *headers: bytes, status: bytes = b"200 OK", length: int | None = None) -> bytes:
    lines = [
        b"HTTP/1.1 " + status,
        b"Content-Length: %d" % (len(body) if length is None else length),
        *headers,
    ]
    return b"\r\n".join([*lines, b"Connection: close", b"", body])


def zstd_of_zeros(blocks: int) -> bytes:
    """Return zstd (RFC 8878) of so many blocks of 128 KiB, each one byte that is repeated."""
    # A window of 128 KiB; each block: not the last one, RLE, its size; then an empty last one.
    block = ((1 << 17) << 3 | 1 << 1).to_bytes(3, "little") + b"0"
    return b"\x28\xb5\x2f\xfd\x00\x38" + block * blocks + b"\x01\x00\x00"


@dataclass(frozen=True)
class Case:
    """What is answered to a provider's request, and what is made of it."""

    answer: Callable[[str], bytes]
    kind: ErrorKind
    # One of these, whole: libcurl tells some at the one place or the other.
    messages: tuple[str, ...]


def bodies(body: Callable[[str], bytes], kind: ErrorKind, message: str, **more: bytes) -> Case:
    return Case(lambda provider: reply(body(provider), **more), kind, (message,))  # type: ignore[arg-type]


def coded(coding: bytes, body: bytes, *messages: str) -> Case:
    return Case(lambda _: reply(body, b"Content-Encoding: " + coding), UPSTREAM_ERROR, messages)


def with_status(status: bytes, message: str) -> Case:
    return Case(lambda provider: reply(body_of(provider), status=status), UPSTREAM_ERROR, (message,))


NO_NUMBER = "the price is not a number"
NOT_ABOVE_0 = "the price is not a number above 0"
NOT_BETWEEN = "the price is not between 10^-16 and 10^12"
WAITING = "no answer within 0.5 s (waiting)"

CASES = {
    "gzip bomb": coded(b"gzip", gzip.compress(b"0" * (16 * MIB)), TOO_LARGE),
    "gzip bomb twice": coded(b"gzip, gzip", gzip.compress(gzip.compress(b"0" * (16 * MIB))), TOO_LARGE),
    # Only Yahoo's client, which is a browser's, takes zstd.
    "zstd bomb": coded(b"zstd", zstd_of_zeros(1000), TOO_LARGE, PACKED),
    "brotli that is none": coded(b"br", b"\xff" * 100, PACKED),
    # libcurl does not look whether it is whole; the JSON in it tells.
    "gzip cut": Case(
        lambda name: reply(gzip.compress(body_of(name))[:-12], b"Content-Encoding: gzip"),
        MALFORMED,
        (NO_JSON,),
    ),
    "body cut": Case(lambda name: reply(body_of(name), length=10_000), UPSTREAM_ERROR, (BROKE_OFF,)),
    "flood of 1xx": Case(
        lambda name: b"HTTP/1.1 103 Early Hints\r\n\r\n" * 300_000 + reply(body_of(name)),
        UPSTREAM_ERROR,
        (BROKE_OFF, WAITING),
    ),
    "header of 1 MB": Case(
        lambda name: reply(body_of(name), b"X: " + b"y" * MIB), UPSTREAM_ERROR, (LARGE_HEADERS,)
    ),
    "100,000 headers": Case(
        lambda name: reply(body_of(name), *[b"X: y"] * 100_000), UPSTREAM_ERROR, (LARGE_HEADERS,)
    ),
    "nul in a header": Case(
        lambda name: reply(body_of(name), b"X: a\0b"), UPSTREAM_ERROR, ("the answer is not HTTP",)
    ),
    "redirect to a file": Case(
        lambda _: reply(b"", b"Location: file:///etc/passwd", status=b"302 Found"),
        UPSTREAM_ERROR,
        ("the provider answered HTTP 302",),
    ),
    "redirect to another host": Case(
        lambda _: reply(b"", b"Location: http://127.0.0.1:1/", status=b"307 Temporary Redirect"),
        UPSTREAM_ERROR,
        ("the provider answered HTTP 307",),
    ),
    **{
        f"status {status.decode()}": with_status(status, f"the provider answered HTTP {status[:3].decode()}")
        for status in (b"203 Non-Authoritative", b"206 Partial Content", b"407 Proxy", b"502 Bad Gateway")
    },
    "status 204": Case(
        lambda _: b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
        UPSTREAM_ERROR,
        ("the provider answered HTTP 204",),
    ),
    "empty": bodies(lambda _: b"", MALFORMED, NO_JSON),
    "white space": bodies(lambda _: b" \r\n", MALFORMED, NO_JSON),
    "nul": bodies(lambda name: body_of(name) + b"\0", MALFORMED, NO_JSON),
    "no utf-8": bodies(lambda name: body_of(name)[:-1] + b',"x":"\xff"}', MALFORMED, NO_JSON),
    "utf-16": bodies(lambda name: body_of(name).decode().encode("utf-16"), MALFORMED, NO_JSON),
    "nesting": bodies(lambda _: b'{"a":' * 100_000, MALFORMED, NO_JSON),
    "nesting to its end": bodies(lambda _: b"[" * 50_000 + b"]" * 50_000, MALFORMED, NO_JSON),
    "web page": bodies(lambda _: b"<html>OK", UPSTREAM_ERROR, "the answer is a web page"),
}
# Numbers of JSON in Finnhub's and Yahoo's answers, texts in Alpha Vantage's.
PRICES = {
    "NaN": {NOT_ABOVE_0, NO_NUMBER},
    "Infinity": {NOT_ABOVE_0, NO_NUMBER},
    "-Infinity": {NOT_ABOVE_0, NO_NUMBER},
    "1e400": {NOT_BETWEEN},
    "1e-400": {NOT_BETWEEN},
    "1e99999999999999999999": {NOT_ABOVE_0, NO_NUMBER},
    "-0": {NOT_ABOVE_0},
    "-0.0": {NOT_ABOVE_0},
    "0": {NOT_ABOVE_0},
    "9" * 5000: {NOT_BETWEEN},
}


@pytest.fixture(autouse=True)
def _settings(settings: Settings) -> Iterator[None]:
    settings.PROVIDER_TIMEOUT_S = 0.5
    settings.ALPHA_VANTAGE_API_KEY = settings.FINNHUB_API_KEY = KEY
    http._forget_session()
    yield
    http._forget_session()
    yahoo_session.forget_clients()


@dataclass
class Wire:
    """A server for one bad answer; every later one is a good one."""

    provider: str
    bad: bytes
    requests: int = 0

    def serve(self, connection: socket.socket, _: threading.Event) -> None:
        self.requests += 1
        # A client that has seen enough may be gone.
        connection.sendall(self.bad if self.requests == 1 else reply(body_of(self.provider)))
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


def error_then_quote(provider: str, bad: bytes, settings: Settings) -> ProviderError:
    """Return the error of a bad answer, after a good one to the next request."""
    wire = Wire(provider, bad)
    with raw_server(wire.serve) as url:
        settings.ALPHA_VANTAGE_BASE_URL = settings.FINNHUB_BASE_URL = settings.YAHOO_BASE_URL = url
        # Cookies and crumbs have tests of their own.
        yahoo_session._client(url).do_without_crumb()
        started = time.monotonic()
        found = ask(provider, "AAPL")
        # The deadline, and what a busy machine adds.
        assert time.monotonic() - started < 12
        assert isinstance(found, ProviderError), found
        settings.PROVIDER_TIMEOUT_S = 10
        following = ask(provider, "AAPL")
        assert isinstance(following, Quote), following
        assert str(following.price) == PRICE
    assert wire.requests == 2
    assert KEY not in repr(found)
    assert found.__context__ is found.__cause__ is None
    return found


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_answer_of_any_bytes_is_one_error(provider: str, case: Case, settings: Settings) -> None:
    error = error_then_quote(provider, case.answer(provider), settings)
    assert error.kind == case.kind
    assert error.message in case.messages


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("price", PRICES, ids=lambda price: price[:9])
def test_price_that_is_no_number_above_0_is_malformed(provider: str, price: str, settings: Settings) -> None:
    error = error_then_quote(provider, reply(body_of(provider, price)), settings)
    assert error.kind == MALFORMED
    assert error.message in PRICES[price]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_byte_order_mark_is_read(provider: str, settings: Settings) -> None:
    with raw_server(Wire(provider, reply(b"\xef\xbb\xbf" + body_of(provider))).serve) as url:
        settings.ALPHA_VANTAGE_BASE_URL = settings.FINNHUB_BASE_URL = settings.YAHOO_BASE_URL = url
        yahoo_session._client(url).do_without_crumb()
        assert isinstance(ask(provider, "AAPL"), Quote)
