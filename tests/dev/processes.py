"""Helpers for tests that start and kill real processes."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil


def processes_below(folder: Path) -> list[str]:
    """Name the processes that work in a folder or have it in their command line, this one apart."""
    return [
        f"{process.pid} {process.name()}"
        for process in _others()
        if any(_is_below(place, folder) for place in _places(process))
    ]


def _others() -> Iterator[psutil.Process]:
    yield from (process for process in psutil.process_iter() if process.pid != os.getpid())


def _places(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        if process.status() != psutil.STATUS_ZOMBIE:
            return [process.cwd(), *process.cmdline(), process.environ().get("RUN_FOLDER", "")]
    return []


def _is_below(place: str, folder: Path) -> bool:
    return str(folder) in place
