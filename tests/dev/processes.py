"""Helpers for tests that start and kill real processes."""

import os
from contextlib import suppress
from pathlib import Path

import psutil


def processes_below(folder: Path) -> list[str]:
    """Name the processes that work in a folder or have it in their command line, this one apart."""
    return [
        f"{process.pid} {name}"
        for process in psutil.process_iter()
        if process.pid != os.getpid() and (name := _name_below(process, folder))
    ]


def _name_below(process: psutil.Process, folder: Path) -> str | None:
    # One that ends while it is looked at is gone.
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        places = [process.cwd(), *process.cmdline(), process.environ().get("RUN_FOLDER", "")]
        if any(str(folder) in place for place in places):
            return process.name()
    return None
