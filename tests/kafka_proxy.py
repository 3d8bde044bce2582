"""A proxy before the real Kafka that can leave the brokers out of answers, as a node that shuts down does."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Self

from dev.embedded.ports import HOST

METADATA = 3
# From this version on lengths are varints, and fields may have tags.
FLEXIBLE = 9


class KafkaProxy:
    """Passes bytes on to a Kafka of one node, and names itself as that node in answers about the cluster.

    Where `hides_brokers` is set, these name no broker; the topics are in them as ever.
    """

    def __init__(self, bootstrap_servers: str) -> None:
        host, _, port = bootstrap_servers.rpartition(":")
        self._kafka = (host, int(port))
        self._server = socket.create_server((HOST, 0))
        self._closing = ExitStack()
        self._closing.callback(self._server.close)
        self.hides_brokers = False
        # How many answers named no broker.
        self.hidden = 0

    @property
    def address(self) -> str:
        """What clients call bootstrap servers."""
        return f"{HOST}:{self.port}"

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.getsockname()[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What waits in `accept` or `recv` is not woken by `close` alone.
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._closing.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                try:
                    kafka = socket.create_connection(self._kafka)
                except OSError:
                    client.close()
                    continue
                self._closing.callback(_close, client, kafka)
                asked: dict[int, tuple[int, int]] = {}
                for pump in (self._pass_requests, self._pass_answers):
                    threading.Thread(target=pump, args=(client, kafka, asked), daemon=True).start()

    def _pass_requests(
        self, client: socket.socket, kafka: socket.socket, asked: dict[int, tuple[int, int]]
    ) -> None:
        with _ends_both(client, kafka):
            for frame in _frames(client):
                key, version, number = struct.unpack_from(">hhi", frame)
                asked[number] = (key, version)
                _send(kafka, frame)

    def _pass_answers(
        self, client: socket.socket, kafka: socket.socket, asked: dict[int, tuple[int, int]]
    ) -> None:
        with _ends_both(client, kafka):
            for frame in _frames(kafka):
                (number,) = struct.unpack_from(">i", frame)
                key, version = asked.pop(number)
                if key == METADATA:
                    assert version >= FLEXIBLE, f"metadata of version {version}"
                    frame = self._with_own_brokers(frame)
                _send(client, frame)

    def _with_own_brokers(self, frame: bytes) -> bytes:
        # The number of the request, tags, and for how long it was throttled.
        begin = 4 + 1 + 4
        (node, rest) = _broker(frame, begin)
        if self.hides_brokers:
            self.hidden += 1
            return frame[:begin] + b"\x01" + frame[rest:]
        host = HOST.encode()
        own = struct.pack(f">Bi B{len(host)}s iBB", 2, node, len(host) + 1, host, self.port, 0, 0)
        return frame[:begin] + own + frame[rest:]


def _broker(frame: bytes, begin: int) -> tuple[int, int]:
    """Return the id of the one broker in a list of brokers, and where the list ends."""
    assert frame[begin] == 2, "not one broker"
    (node,) = struct.unpack_from(">i", frame, begin + 1)
    # The lengths of names are told as one more; that of no rack is 0.
    port_at = begin + 5 + frame[begin + 5]
    rack_at = port_at + 4
    return node, rack_at + max(frame[rack_at], 1) + 1


def _frames(source: socket.socket) -> Iterator[bytes]:
    while head := _receive(source, 4):
        yield _receive(source, int.from_bytes(head))


def _receive(source: socket.socket, size: int) -> bytes:
    """Return so many bytes; none where the other side has ended the connection."""
    received = bytearray()
    while len(received) < size:
        piece = source.recv(size - len(received))
        if not piece:
            return b""
        received += piece
    return bytes(received)


def _send(target: socket.socket, frame: bytes) -> None:
    target.sendall(len(frame).to_bytes(4) + frame)


@contextmanager
def _ends_both(client: socket.socket, kafka: socket.socket) -> Iterator[None]:
    with suppress(OSError):
        yield
    _close(client, kafka)


def _close(*sockets: socket.socket) -> None:
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
