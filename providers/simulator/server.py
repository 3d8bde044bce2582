"""The simulator's HTTP server: a thread for each connection, which stays open as its client likes."""

import contextlib
import socket
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs

from providers.simulator.answers import Answer, Ask, Dialect, Ending
from providers.simulator.control import control, refused
from providers.simulator.engine import DIALECTS, Engine

MAX_BODY_BYTES = 64 * 1024
_CLOSE_TIMEOUT_S = 5.0
# Closing the socket then sends a reset, and drops what was not sent yet.
_LINGER_NONE = struct.pack("ii", 1, 0)


class Server(ThreadingHTTPServer):
    """Serves an Engine. `stop` ends it with all that is under way; raises OSError for a taken address."""

    # A whole fleet may connect at the same moment.
    request_queue_size = 1024
    daemon_threads = True
    # Two simulators on one port would share the requests.
    allow_reuse_port = False

    def __init__(self, host: str, port: int, engine: Engine) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.engine = engine
        self.closing = threading.Event()
        self._connections: set[Any] = set()
        self._changed = threading.Condition()
        super().__init__((host, port), _Handler)
        self._loop = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    def start(self) -> None:
        """Serve from now on, in threads of its own."""
        self._loop.start()

    def stop(self) -> None:
        """End the serving: open connections are closed, and waiting answers are given up."""
        self.closing.set()
        self.shutdown()
        self._loop.join()
        self.server_close()
        with self._changed:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._connections, _CLOSE_TIMEOUT_S)

    def server_bind(self) -> None:
        """Bind without the look-up of the host's name, which can take seconds."""
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own."""
        with self._changed:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection; without a word of farewell where it is to be reset."""
        try:
            if request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == _LINGER_NONE:
                self.close_request(request)
            else:
                super().shutdown_request(request)
        finally:
            with self._changed:
                self._connections.discard(request)
                self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay quiet where the client has gone; anything else is a bug and is printed."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    # Headers and body leave in one piece, at once.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        path, _, query_text = self.path.partition("?")
        query = {name: values[0] for name, values in parse_qs(query_text, keep_blank_values=True).items()}
        body = self._read_body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        takers = (dialect for dialect in DIALECTS if dialect.takes(path, headers))
        dialect = next(takers, None) if self.command == "GET" else None
        if body is None:
            self._send(refused(413, f"the body must have a length of at most {MAX_BODY_BYTES} bytes"))
        elif dialect:
            self._exchange(dialect, dialect.read(path, query, headers))
        else:
            self._send(control(self.server.engine, self.command, path, query=query, body=body))

    do_PATCH = do_DELETE = do_POST = do_PUT = do_GET  # noqa: N815  # the names that the base class looks for

    def version_string(self) -> str:
        """Return the header Server."""
        return "simulator"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name of the base class
        """Write nothing: a request's line holds the key. What came is in the log of requests."""

    def _read_body(self) -> bytes | None:
        length = self.headers.get("Content-Length", "0")
        chunked = "Transfer-Encoding" in self.headers
        if chunked or not length.isdecimal() or int(length[:9]) > MAX_BODY_BYTES:
            # Where the next request would begin is not known.
            self.close_connection = True
            return None
        return self.rfile.read(int(length))

    def _exchange(self, dialect: Dialect, ask: Ask) -> None:
        answer, delay_s = self.server.engine.answer(dialect.name, ask)
        self.close_connection |= answer.ending != Ending.ANSWERED
        if answer.ending == Ending.CLOSED:
            return
        if self.server.closing.wait(delay_s):
            self.close_connection = True
        elif answer.ending == Ending.HANG:
            self._hang()
        else:
            self._send(answer)

    def _hang(self) -> None:
        # Empty once the client has gone, or this server stops.
        while self.connection.recv(MAX_BODY_BYTES):
            pass

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if answer.ending == Ending.RESET:
            self.wfile.write(answer.body[: len(answer.body) // 2])
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
        else:
            self.wfile.write(answer.body)
