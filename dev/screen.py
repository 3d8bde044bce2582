"""What `make run` prints before the processes' own lines."""

import os
from collections.abc import Callable, Sequence
from typing import TextIO

from rich.console import Console
from rich.table import Table


class Output:
    """Standard output that asks to stop where nobody reads it any more, instead of failing at each line."""

    def __init__(self, stream: TextIO, *, on_closed: Callable[[], None]) -> None:
        self._stream = stream
        self._on_closed = on_closed

    def write(self, text: str) -> int:
        """Write, or notice that the terminal or the pipe is gone."""
        try:
            return self._stream.write(text)
        except OSError:
            self._close()
            return len(text)

    def flush(self) -> None:
        """Flush, or notice that the terminal or the pipe is gone."""
        try:
            self._stream.flush()
        except OSError:
            self._close()

    def isatty(self) -> bool:
        """Return whether a person looks at it."""
        return self._stream.isatty()

    def _close(self) -> None:
        # What is still in the buffer must not fail when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        self._on_closed()


def make_console(output: Output) -> Console:
    """Return a console that prints sentences as they are and wraps them at words."""
    return Console(file=output, highlight=False, markup=False, emoji=False)  # type: ignore[arg-type]  # has all that rich calls


def address_table(rows: Sequence[tuple[str, str]]) -> Table:
    """Return the table of names and addresses; no address is cut or wrapped on a narrow terminal."""
    table = Table(box=None, show_header=False, padding=(0, 1), pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, address in rows:
        table.add_row(name, address)
    return table
