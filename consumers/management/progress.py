"""How far a command is, shown while it works: a bar in a terminal, else a line now and then. On stderr."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

LINE_EACH_S = 10.0


class Show(Protocol):
    """Shows how much is done, of how much, and what that is in words."""

    def __call__(self, done: int, total: int, words: str, /) -> None: ...


@contextmanager
def shown_progress() -> Iterator[Show]:
    """Yield a function that shows how far the work is; a command's answer on stdout is not touched."""
    with _bar() if sys.stdout.isatty() and sys.stderr.isatty() else _lines() as show:
        yield show


@contextmanager
def _bar() -> Iterator[Show]:
    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")
        yield lambda done, total, words: bar.update(task, completed=done, total=total, description=words)


@contextmanager
def _lines() -> Iterator[Show]:
    last = time.monotonic()

    def show(_done: int, _total: int, words: str) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_EACH_S:
            last = time.monotonic()
            print(words, file=sys.stderr, flush=True)  # noqa: T201 - not a part of the answer

    yield show
