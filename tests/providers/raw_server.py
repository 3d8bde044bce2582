"""A server for answers that no HTTP server would send: it writes bytes when it likes."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Serve = Callable[[socket.socket, threading.Event], None]


@contextmanager
def raw_server(serve: Serve) -> Iterator[str]:
    """Yield the url of a server that hands each connection, its request read, to `serve`.

    The event is set at the end of the test: `serve` returns then.
    """
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_accept, args=(listener, serve, over), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            # Wakes accept(): closing alone does not, on Linux.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=10)


def _accept(listener: socket.socket, serve: Serve, over: threading.Event) -> None:
    while not over.is_set():
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        connection.settimeout(5)
        with connection:
            try:
                connection.recv(65536)
                serve(connection, over)
            except OSError:
                continue


def drip(connection: socket.socket, over: threading.Event, *, start: bytes, piece: bytes) -> None:
    """Send `start`, then `piece` ten times a second until the client has gone."""
    connection.sendall(start)
    while not over.wait(0.1):
        connection.sendall(piece)
