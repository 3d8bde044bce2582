"""What `make run` prints, and what happens when nobody reads it."""

import io
import os

import pytest
from rich.console import Console

from dev.screen import Output, address_table
from dev.stopping import StopRequest


@pytest.mark.parametrize("text", ["fits into the buffer\n", "does not " * 10_000])
def test_output_closed_pipe_asks_to_stop_once(text: str) -> None:
    stop = StopRequest()
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        output = Output(pipe, on_closed=stop.ask)
        for _ in range(2):
            output.write(text)
            output.flush()
    assert stop.times == 1


def test_address_table_narrow_terminal_cuts_nothing() -> None:
    screen = io.StringIO()
    address = "http://127.0.0.1:8000/" + "a" * 60
    Console(file=screen, width=60).print(address_table([("Service", address)]))
    assert "".join(screen.getvalue().split()) == f"Service{address}"
