"""An answer on its way to the client: whole, or made piece by piece as it is read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

# Of a streamed answer, that is in memory for each client; files come in pieces of some KB.
PIECE_BYTES = 16 * 1024

# Names are in lower case.
Headers: TypeAlias = list[tuple[bytes, bytes]]


class Stream(Protocol):
    """The pieces of a streamed answer."""

    def next_piece(self) -> bytes | None:
        """Return what comes next; None at the end."""

    def close(self) -> None:
        """End it, at the end or before."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an application returns; `more` has what follows the body of a streamed one."""

    status: int
    headers: Headers
    body: bytes
    more: Stream | None = None


class WSGIStream:
    """A streamed response of a WSGI application."""

    def __init__(self, response: Iterable[bytes]) -> None:
        self._response = response
        self._pieces: Iterator[bytes] = iter(response)
        self._made = bytearray()

    def next_piece(self) -> bytes | None:
        """Return what comes next, joined of small pieces or cut from a large one; None at the end."""
        while len(self._made) < PIECE_BYTES and (piece := next(self._pieces, None)) is not None:
            self._made += piece
        piece = bytes(self._made[:PIECE_BYTES])
        del self._made[:PIECE_BYTES]
        return piece or None

    def close(self) -> None:
        """End it, at the end or before."""
        close(self._response)


def close(response: Iterable[bytes]) -> None:
    """Tell a WSGI application's response that it is over."""
    close_it = getattr(response, "close", None)
    if close_it is not None:
        close_it()
