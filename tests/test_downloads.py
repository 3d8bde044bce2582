"""Streamed answers as the web server sends them: whole, or cut off so that nobody takes them for whole."""

import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from tests.product import Product
from tests.streaming import PIECE
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
READERS = 50
END = b"\r\n0\r\n\r\n"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Product]:
    product = Product(tmp_path)
    command = product.command("web").replace("marketdata.asgi:", "tests.streaming:")
    product.set_command("web", command)
    product.start("web")
    try:
        wait_until(lambda: product.is_healthy("web"), what="web answers")
        yield product
    finally:
        product.close()


def ask(web: Product, path: str) -> socket.socket:
    host, port = web.address.split(":")
    client = socket.create_connection((host, int(port)), timeout=30)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return client


def rest_of(client: socket.socket) -> bytes:
    """Return what comes until the connection is closed."""
    with client.makefile("rb") as answer:
        return answer.read()


def test_answer_that_is_made_whole_has_an_end(web: Product) -> None:
    assert requests.get(f"http://{web.address}/", timeout=30).content == PIECE


def test_answer_whose_making_fails_has_none(web: Product) -> None:
    with ask(web, "/broken") as client:
        answer = rest_of(client)
    assert PIECE in answer
    assert not answer.endswith(END)


def test_clients_that_read_nothing_are_cut_off_and_hold_nobody_up(web: Product) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(ask(web, "/endless")) for _ in range(READERS)]
        wait_until(lambda: len(select.select(silent, [], [], 0)[0]) == READERS, what="all are answered")
        assert requests.get(f"http://{web.address}/", timeout=30).ok
        log = web.log("web")
        wait_until(lambda: log.read_text().count("download.cut") == READERS, what="all are cut off")
        # They read only now: what is left in the sockets' buffers is no whole answer.
        answers = [rest_of(client) for client in silent]
    assert [answer for answer in answers if answer.endswith(END)] == []
