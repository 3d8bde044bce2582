"""Loopback ports for the embedded parts."""

import random
import socket
from pathlib import Path

HOST = "127.0.0.1"
# Below the range from which systems take the ports of outgoing connections (Linux: from 32768). A client
# that keeps asking for a port of that range while its server is down can connect to itself, and the
# server cannot come back.
LOWEST, HIGHEST = 20_000, 32_000


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        # As servers do: connections of an earlier run that are still closing do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def kept_port(file: Path) -> int:
    """Give the port that `file` remembers if it is free, else another one, and remember that."""
    port = _remembered(file)
    if port is None or not is_free(port):
        port = _free_port()
        file.write_text(f"{port}\n")
    return port


def _remembered(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _free_port() -> int:
    while True:
        # Random, so that two checkouts that start at once do not run for the same one.
        port = random.randint(LOWEST, HIGHEST)  # noqa: S311
        if is_free(port):
            return port
