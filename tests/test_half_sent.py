"""Clients who send a part of a request keep nobody else from being answered."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from marketdata.bridge import BODY_LIMIT_BYTES, BODY_WITHIN_S
from prices.models import PollJob
from tests.product import Product
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
CLIENTS = 200
BODY = b'{"symbols": ["SIM-A"], "interval": 5, "provider": "simulated"}'


@pytest.fixture
def web(partitions: None, topic: str, tmp_path: Path) -> Iterator[Product]:
    product = Product(tmp_path)
    product.start("web")
    try:
        wait_until(lambda: product.is_healthy("web"), what="web is ready")
        yield product
    finally:
        product.close()


def send(web: Product, body: bytes, *, length: int = len(BODY), more: str = "") -> socket.socket:
    """Send the headers of a request with so long a body, and this much of it."""
    host, port = web.address.split(":")
    client = socket.create_connection((host, int(port)), timeout=30)
    headers = f"Host: {host}\r\nContent-Type: application/json\r\n{more or f'Content-Length: {length}'}\r\n"
    client.sendall(f"POST /prices/poll HTTP/1.1\r\n{headers}\r\n".encode() + body)
    return client


def status_of(client: socket.socket) -> bytes:
    """Return the status line of the answer."""
    with client, client.makefile("rb") as answer:
        return answer.readline().strip()


def taken_s(web: Product, path: str) -> float:
    began = time.monotonic()
    assert requests.get(f"http://{web.address}{path}", timeout=30).status_code == 200
    return time.monotonic() - began


def test_bodies_that_are_half_sent_hold_nobody_up(web: Product) -> None:
    paths = ("/livez", "/prices/latest?symbol=SIM-A", "/jobs")
    for path in paths:
        taken_s(web, path)
    with ExitStack() as stack:
        halves = [stack.enter_context(send(web, BODY[:7])) for _ in range(CLIENTS)]
        took = [taken_s(web, path) for _ in range(3) for path in paths]
        assert status_of(send(web, BODY)) == b"HTTP/1.1 202 Accepted"
        # Far less than a body is waited for; on an idle machine a hundredth.
        assert max(took) < BODY_WITHIN_S, took
        assert {status_of(client) for client in halves} == {b"HTTP/1.1 408 Request Timeout"}
    assert PollJob.objects.count() == 1


def test_body_that_comes_slowly_or_in_chunks_is_served(web: Product) -> None:
    with send(web, BODY[:7]) as slow:
        taken_s(web, "/livez")
        slow.sendall(BODY[7:])
        assert status_of(slow) == b"HTTP/1.1 202 Accepted"
    chunks = b"7\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (BODY[:7], len(BODY) - 7, BODY[7:])
    assert status_of(send(web, chunks, more="Transfer-Encoding: chunked")) == b"HTTP/1.1 202 Accepted"
    # Refused by its length, before it comes.
    assert status_of(send(web, b"", length=BODY_LIMIT_BYTES + 1)).startswith(b"HTTP/1.1 413 ")
