"""The consumer's connection waits for nothing for long, nor for a process that is stopped."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
import pytest
from django.db import connection as django_connection

import consumers.averages.connection
from consumers.averages.connection import connect
from prices.database.time_limit import time_limit
from prices.models import DeadLetter, SymbolAverage
from tests.consumers.samples import BEGIN, EventStore, assert_averages_right, dead_letter, events
from tests.consumers.stopped_backend import stopped_backends
from tests.odd_database import BOUNDS, ODD, RELIED_ON, odd_defaults

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("lock_timeout", "2s"),
        ("transaction_timeout", "5s"),
        ("transaction_isolation", "read committed"),
        ("application_name", "consume_prices"),
    ],
)
def test_connection_has_its_bounds(setting: str, value: str) -> None:
    with connect() as connection:
        row = connection.execute("SELECT current_setting(%s)", [setting]).fetchone()
    assert row == (value,)


@pytest.fixture
def odd_database(transactional_db: None) -> Iterator[None]:
    with odd_defaults({**ODD, **BOUNDS}):
        yield


@pytest.mark.usefixtures("odd_database")
def test_odd_defaults_of_the_database_change_no_connection() -> None:
    expected = {
        **RELIED_ON,
        "TimeZone": "UTC",
        "lock_timeout": "2000",
        "transaction_timeout": "5000",
        "statement_timeout": "0",
        "idle_session_timeout": "0",
        "idle_in_transaction_session_timeout": "0",
    }
    with connect() as connection:
        rows = connection.execute(
            "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [list(expected)]
        ).fetchall()
    assert dict(rows) == expected


def test_odd_defaults_of_the_database_change_no_row(store: EventStore) -> None:
    stream = events(["100", "101", "99", "102", "98", "0.0000000000000001"])
    with odd_defaults({**ODD, **BOUNDS}):
        store.write([stream[0], *stream[2:]], [dead_letter(7)])
        store.write([stream[1]])
    assert_averages_right(stream)
    assert SymbolAverage.objects.order_by("event_id")[0].observed_at == BEGIN
    assert DeadLetter.objects.get().message_timestamp == BEGIN


def test_transaction_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers.averages.connection, "TRANSACTION_TIMEOUT_MS", 100)
    with connect() as connection, pytest.raises(psycopg.errors.TransactionTimeout):
        connection.execute("SELECT pg_sleep(5)")


@pytest.fixture(params=["unix socket", "TCP"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Connect in each way: by TCP through a relay, as the server of the tests has no port."""
    if request.param == "unix socket":
        yield
        return
    with relay_to(unix_socket()) as port:
        monkeypatch.setitem(django_connection.settings_dict, "HOST", "127.0.0.1")
        monkeypatch.setitem(django_connection.settings_dict, "PORT", str(port))
        yield


@pytest.mark.usefixtures("way")
def test_stopped_backend_is_not_waited_for() -> None:
    with connect() as connection:
        with stopped_backends(), pytest.raises(psycopg.OperationalError), time_limit(connection, seconds=0.3):
            connection.execute("SELECT 1")
        assert connection.broken


@pytest.mark.usefixtures("way")
def test_time_limit_that_is_kept_changes_nothing() -> None:
    with connect() as connection:
        with time_limit(connection, seconds=60):
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert connection.execute("SELECT 2").fetchone() == (2,)


def test_server_that_takes_connections_and_answers_nothing_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setitem(django_connection.settings_dict, "HOST", "127.0.0.1")
        monkeypatch.setitem(django_connection.settings_dict, "PORT", str(server.getsockname()[1]))
        with pytest.raises(psycopg.OperationalError, match="timeout"):
            connect()


def unix_socket() -> str:
    host = django_connection.settings_dict["HOST"]
    if not host.startswith("/"):
        pytest.skip("PostgreSQL was given by its address")
    return f"{host}/.s.PGSQL.{django_connection.settings_dict['PORT'] or 5432}"


@contextmanager
def relay_to(path: str) -> Iterator[int]:
    """Relay TCP connections to a unix socket."""

    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.socket(socket.AF_UNIX) as other:
                other.connect(path)
                back = threading.Thread(target=copy, args=(other, self.request), daemon=True)
                back.start()
                copy(self.request, other)
                back.join()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Relay) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
