"""The simulator as a server: many connections, slow answers, and an end that leaves nothing behind."""

import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import requests
from pytest_django import Settings

from providers.simulator.faults import FaultsError
from providers.simulator.simulator import Simulator
from tests.providers.answers import quote_of
from tests.simulator import KEY, ask
from tests.waiting import wait_until

REQUEST = (
    b"GET /api/v1/quote?symbol=IBM HTTP/1.1\r\nHost: simulator\r\nX-Finnhub-Token: "
    + KEY.encode()
    + b"\r\n\r\n"
)


def connect(simulator: Simulator) -> socket.socket:
    host, _, port = simulator.url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def read_to_end(connection: socket.socket) -> bytes:
    received = b""
    while piece := connection.recv(65536):
        received += piece
    return received


def test_two_hundred_connections_are_served_at_once(simulator: Simulator) -> None:
    simulator.change(latency_s=0.5)
    started = time.monotonic()
    connections = [connect(simulator) for _ in range(200)]
    try:
        for _ in range(2):
            for connection in connections:
                connection.sendall(REQUEST)
            for connection in connections:
                assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
    finally:
        for connection in connections:
            connection.close()
    assert len(simulator.requests()) == 400
    assert 1 <= time.monotonic() - started < 30


def test_answer_comes_after_the_latency(simulator: Simulator) -> None:
    simulator.change(latency_s=0.3)
    started = time.monotonic()
    quote_of(ask("finnhub"))
    assert 0.3 <= time.monotonic() - started < 30


def test_connection_is_kept_over_many_requests(simulator: Simulator) -> None:
    with connect(simulator) as connection:
        for _ in range(5):
            connection.sendall(REQUEST)
            assert b'"t":' in connection.recv(65536)


def test_reset_breaks_off_an_answer_and_an_outage_gives_none(simulator: Simulator) -> None:
    simulator.change(error_rate=1, error="reset")
    with connect(simulator) as connection:
        connection.sendall(REQUEST)
        with pytest.raises(ConnectionResetError):
            read_to_end(connection)
    simulator.change(outage=True)
    with connect(simulator) as connection:
        connection.sendall(REQUEST)
        assert connection.recv(65536) == b""


def test_limit_holds_for_requests_at_the_same_moment(simulator: Simulator) -> None:
    simulator.change(rate_limit="20/1h")
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: ask("finnhub"), range(80)))
    assert Counter(each.outcome for each in simulator.requests()) == {"quote": 20, "rate_limited": 60}
    times = [each.time for each in simulator.requests()]
    assert times == sorted(times)


def test_end_closes_idle_slow_and_hanging_connections() -> None:
    before = threading.active_count()
    with Simulator(error="hang") as simulator:
        idle, slow, hanging = (connect(simulator) for _ in range(3))
        simulator.change(latency_s=60)
        slow.sendall(REQUEST)
        wait_until(lambda: len(simulator.requests()) == 1)
        simulator.change(latency_s=0, error_rate=1)
        hanging.sendall(REQUEST)
        wait_until(lambda: len(simulator.requests()) == 2)
        started = time.monotonic()
    assert time.monotonic() - started < 30
    for connection in (idle, slow, hanging):
        assert connection.recv(1) == b""
        connection.close()
    wait_until(lambda: threading.active_count() == before)


def test_hanging_request_ends_with_its_client(simulator: Simulator, settings: Settings) -> None:
    before = threading.active_count()
    simulator.change(error_rate=1, error="hang")
    with connect(simulator) as connection:
        connection.sendall(REQUEST)
        wait_until(lambda: threading.active_count() > before)
    wait_until(lambda: threading.active_count() == before)


def test_garbage_gets_an_answer_and_stops_nothing(
    simulator: Simulator, capfd: pytest.CaptureFixture[str]
) -> None:
    pieces = [b"\x00\xff\r\n\r\n", b"GET http://[ HTTP/1.1\r\n\r\n", b"PATCH /_faults HTTP/1.1\r\n"]
    lengths = [b"Content-Length: -1", b"Content-Length: x", b"Transfer-Encoding: chunked"]
    for garbage in pieces[:2] + [pieces[2] + length + b"\r\n\r\n" for length in lengths]:
        with connect(simulator) as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(65536)
    quote_of(ask("finnhub"))
    assert capfd.readouterr() == ("", "")


def test_connection_ends_where_the_next_request_cannot_be_found(simulator: Simulator) -> None:
    with connect(simulator) as connection:
        connection.sendall(b"PATCH /_faults HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + REQUEST)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
        # What was not read makes the end of the connection a reset.
        with suppress(ConnectionResetError):
            assert read_to_end(connection) == b""
    assert simulator.requests() == []


def test_client_that_goes_away_leaves_no_traceback(
    simulator: Simulator, capfd: pytest.CaptureFixture[str]
) -> None:
    simulator.change(latency_s=0.1)
    with connect(simulator) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.sendall(REQUEST)
    quote_of(ask("finnhub"))
    assert capfd.readouterr() == ("", "")


def test_port_that_is_taken_is_refused(simulator: Simulator) -> None:
    with pytest.raises(OSError, match="in use"):
        Simulator(port=int(simulator.url.rpartition(":")[2]))


def test_faults_that_cannot_be_set_open_no_port() -> None:
    with pytest.raises(FaultsError):
        Simulator(error_rate=2)


def test_simulator_speaks_on_ipv6() -> None:
    try:
        running = Simulator("::1")
    except OSError:
        pytest.skip("this machine has no ::1")
    with running:
        assert requests.get(f"{running.url}/_faults", timeout=5).ok
