"""A company's network: an authority of its own, a provider that it certifies, a proxy with a password."""

import base64
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PASSWORD = "CANARY/pass word"


@dataclass(frozen=True)
class Certificates:
    """Files in PEM: the authority, and what a server on this machine shows that it signed."""

    authority: Path
    server: Path
    expired: Path
    of_another_host: Path


def make_certificates(folder: Path) -> Certificates:
    """Make an authority and a server's certificate for localhost with the program openssl."""
    authority, key = folder / "authority.pem", folder / "authority.key"
    request, server_key = folder / "request.pem", folder / "server.key"
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    _openssl(
        "req", "-x509", *new_key, "-keyout", key, "-out", authority, "-days", "3", "-subj", "/CN=Company"
    )
    _openssl("req", *new_key, "-keyout", server_key, "-out", request, "-subj", "/CN=localhost")
    signed_by = ["-CA", authority, "-CAkey", key, "-CAcreateserial"]

    def signed(name: str, host: str, *, days: int) -> Path:
        certificate, names = folder / f"{name}.pem", folder / f"{name}.txt"
        names.write_text(f"subjectAltName={host}\n")
        _openssl(
            *(
                "x509",
                "-req",
                "-in",
                request,
                *signed_by,
                "-out",
                certificate,
                "-days",
                days,
                "-extfile",
                names,
            )
        )
        certificate.write_text(certificate.read_text() + server_key.read_text())
        return certificate

    here = "DNS:localhost,IP:127.0.0.1"
    return Certificates(
        authority,
        server=signed("server", here, days=3),
        expired=signed("expired", here, days=-1),
        of_another_host=signed("other", "DNS:provider.example", days=3),
    )


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@dataclass
class Proxy:
    """A proxy that connects to where it is asked to, and asks for a password."""

    url: str
    targets: list[str] = field(default_factory=list)


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], context: ssl.SSLContext | None = None) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def tls_provider(certificate: Path, bodies: dict[str, bytes]) -> Iterator[str]:
    """Yield the address of a server that answers these paths over TLS, and whatever else with 404."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = bodies.get(self.path.partition("?")[0])
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: Any) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving(Handler, context) as port:
        yield f"https://localhost:{port}"


@contextmanager
def connect_proxy() -> Iterator[Proxy]:
    """Yield a proxy that is running; its url has the user and the password."""
    expected = "Basic " + base64.b64encode(f"user:{PASSWORD}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_CONNECT(self) -> None:
            if self.headers.get("Proxy-Authorization") != expected:
                self.send_error(407)
                return
            proxy.targets.append(self.path)
            host, _, port = self.path.rpartition(":")
            self.send_response(200)
            self.end_headers()
            self.close_connection = True
            with socket.create_connection((host, int(port)), 5) as target:
                back = threading.Thread(target=_copy, args=(target, self.connection), daemon=True)
                back.start()
                _copy(self.connection, target)
                back.join(5)

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Handler) as port:
        proxy = Proxy(f"http://user:CANARY%2Fpass%20word@127.0.0.1:{port}")
        yield proxy


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
