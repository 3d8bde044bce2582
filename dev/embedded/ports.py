"""Loopback ports for the embedded parts."""

import itertools
import os
import socket
from pathlib import Path

HOST = "127.0.0.1"
# Below the range from which systems take the ports of outgoing connections (Linux: from 32768). A client
# that keeps asking for a port of that range while its server is down can connect to itself, and the
# server cannot come back.
LOWEST, HIGHEST = 20_000, 32_000
# Processes that start together have process ids near each other, and mostly need fewer ports than this.
_PORTS_EACH = 8
_taken = itertools.count()


def is_free(port: int) -> bool:
    """Return whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        # As servers do: connections of an earlier run that are still closing do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a port that is free now, and that neither this process nor a neighbour gets again at once.

    Most servers take their port only a second after it was chosen. So processes and threads that choose at
    the same time are kept apart: each process begins at a place of its own, and goes on from there.
    """
    first = os.getpid() * _PORTS_EACH
    while True:
        port = LOWEST + (first + next(_taken)) % (HIGHEST - LOWEST)
        if is_free(port):
            return port


def kept_port(file: Path) -> int:
    """Return the port that `file` remembers if it is free, else another one, and remember that."""
    port = _remembered(file)
    if port is None or not is_free(port):
        port = free_port()
        file.write_text(f"{port}\n")
    return port


def _remembered(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (FileNotFoundError, ValueError):
        return None
