"""The stream's server: a process of its own."""

import logging
import signal
import socket
from typing import Any

import uvicorn
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from prices.stream.app import StreamServer

# What the system keeps for a client that takes nothing, besides 64 KB in the process.
SEND_BUFFER_BYTES = 128 * 1024
# The system cuts off who confirms nothing for so long: a host that vanished, or a process that is stopped.
UNCONFIRMED_MS = 10_000
STATEMENT_TIMEOUT_MS = 5_000
STOPS_WITHIN_S = 5
_BACKLOG = 2_048


def run_server(*, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises OSError where the port cannot be had."""
    connection_created.connect(_bound_queries)
    logging.getLogger("uvicorn.error").addFilter(_is_no_cut)
    for number in (signal.SIGTERM, signal.SIGINT):
        # The server ends by them, and then raises them once more for whoever began it.
        signal.signal(number, _ended_by)
    with _listen(host, port) as listening:
        config = uvicorn.Config(
            StreamServer().application,
            http="httptools",
            loop="uvloop",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=STOPS_WITHIN_S,
        )
        uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    listening = socket.create_server(
        (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=_BACKLOG
    )
    # Connections have both from the socket that took them.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNCONFIRMED_MS)
    return listening


def _bound_queries(connection: BaseDatabaseWrapper, **_signal: Any) -> None:
    """Let no query take long, and none read a table where there is an index, whatever statistics say."""
    with connection.cursor() as cursor:
        cursor.execute(f"SET statement_timeout = {STATEMENT_TIMEOUT_MS}")
        cursor.execute("SET enable_seqscan = off")


def _ended_by(_number: int, _frame: Any) -> None:
    """Do nothing more."""


def _is_no_cut(record: logging.LogRecord) -> bool:
    # The application has said so itself.
    return "without completing response" not in record.getMessage()
