"""An application whose answers are streamed, for granian: /endless, /broken, and a short one elsewhere."""

from collections.abc import Callable, Iterator
from typing import Any

import django

django.setup()

from marketdata import bridge  # noqa: E402 - settings come first
from marketdata.serving import answers  # noqa: E402

PIECE = b"x" * answers.PIECE_BYTES


class Streamed:
    streaming = True

    def __init__(self, path: str) -> None:
        self._path = path

    def __iter__(self) -> Iterator[bytes]:
        yield PIECE
        while self._path == "/endless":
            yield PIECE
        if self._path == "/broken":
            raise ValueError("broken by the test")


def respond(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    # Of this process alone: the tests import the module, too.
    bridge.SENT_WITHIN_S = 1.0
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Streamed(environ["PATH_INFO"])


application = bridge.Bridge(respond, threads=4)
