"""A client that stands still costs little and is cut off; one that is slow gets all the same."""

import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from tests.consumers.samples import EventStore, event
from tests.prices.stream.conftest import Listen
from tests.product import Product
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
_READER = """
import socket, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])))
connection.sendall(b"GET /prices/stream?symbols=* HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n\\r\\n")
while connection.recv(65536):
    print("read", flush=True)
"""


def connections_to(port: int) -> int:
    return sum(
        each.status == psutil.CONN_ESTABLISHED and each.laddr.port == port
        for each in psutil.net_connections("tcp")
        if each.laddr
    )


def test_client_that_is_stopped_is_cut_off(listen: Listen, store: EventStore, product: Product) -> None:
    other = listen("symbols=SIM-1&from=now")
    other.wait_for_id()
    host, port = product.stream_address.split(":")
    with subprocess.Popen([sys.executable, "-c", _READER, host, port], stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"read\n"
        reader.send_signal(signal.SIGSTOP)
        try:
            before = connections_to(int(port))
            number = 0

            def is_cut_off() -> bool:
                nonlocal number
                store.write([event(number + step, symbol=f"SIM-{step % 3}") for step in range(1_000)])
                number += 1_000
                return connections_to(int(port)) < before

            wait_until(is_cut_off, what="the end of the connection")
        finally:
            os.kill(reader.pid, signal.SIGKILL)
    # Nobody else noticed.
    wait_until(lambda: len(other.prices()) == number // 1_000 * 333)


def test_client_that_was_away_for_a_moment_gets_all(
    listen: Listen, store: EventStore, product: Product
) -> None:
    """More than the system and the process keep for it, and less long than a client may stand still."""
    host, port = product.stream_address.split(":")
    listen("symbols=SIM-A").wait_for_id()
    with socket.create_connection((host, int(port))) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
        connection.sendall(b"GET /prices/stream?symbols=SIM-A HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        received = b""
        while b"\nid: " not in received:
            received += connection.recv(4_096)
        for begin in range(0, 3_000, 500):
            store.write([event(begin + step) for step in range(500)])
        while received.count(b"event: price\n") < 3_000:
            received += connection.recv(65_536)
        ids = [line for line in received.split(b"\n") if line.startswith(b"id: ") and line.count(b".") == 2]
    assert len(ids) == len(set(ids)) == 3_000
