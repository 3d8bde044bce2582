"""One run at a time in a checkout, and one run on a port."""

import fcntl
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path

import psutil

from dev.embedded.ports import is_free

DEFAULT_PORT = 8000
HIGHEST_PORT = 65_535
# The guardian of a killed run ends what was left within this time.
CLEANING_TIMEOUT_S = 40
POLL_S = 0.1


class UsageError(Exception):
    """The run cannot begin; the text says why and what to do."""


def take_lock(data: Path, *, url: str, check: Callable[[], None]) -> TextIOWrapper:
    """Return the open lock file; UsageError with the other run's address where one runs.

    Waits while the remains of a killed run are being ended.
    """
    file = (data / "lock").open("a+")
    deadline = time.monotonic() + CLEANING_TIMEOUT_S
    while not _try_lock(file):
        if (other := _running(file)) or time.monotonic() > deadline:
            file.close()
            raise UsageError(other or f"Another run holds {data / 'lock'}. Wait for it, or end it.")
        check()
        time.sleep(POLL_S)
    file.truncate(0)
    file.write(json.dumps({"pid": os.getpid(), "url": url}))
    file.flush()
    return file


def read_port(text: str, *, variable: str = "PORT", default: int = DEFAULT_PORT) -> int:
    """Return the port that a variable names, the default where it is empty."""
    port = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    if text and not 1 <= port <= HIGHEST_PORT:
        raise UsageError(f"{variable} must be a whole number from 1 to {HIGHEST_PORT}, not {text!r}.")
    return port or default


def check_port(port: int, *, variable: str = "PORT") -> None:
    """Raise UsageError where the port is taken; the text names who has it and a free one.

    The web server would not notice: it shares its port with whoever asks to share (SO_REUSEPORT), so two
    of them would each get half of the requests.
    """
    if not is_free(port):
        free = next((other for other in range(port + 1, HIGHEST_PORT) if is_free(other)), DEFAULT_PORT)
        raise UsageError(
            f"Port {port} is taken{_by_whom(port)}. Stop that, or take another port:"
            f" {variable}={free} make run"
        )


def _try_lock(file: TextIOWrapper) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _running(file: TextIOWrapper) -> str:
    file.seek(0)
    try:
        other = json.loads(file.read())
        os.kill(other["pid"], 0)
    except (ValueError, ProcessLookupError):  # not written yet, or killed
        return ""
    except PermissionError:
        pass
    return (
        f"This checkout runs already: {other['url']} (process {other['pid']}). "
        f"Stop it with Ctrl-C in its terminal or with `kill {other['pid']}`."
    )


def _by_whom(port: int) -> str:
    # Other users' processes are hidden; then the message does without.
    with suppress(psutil.Error):
        for connection in psutil.net_connections(kind="tcp"):
            here = connection.laddr
            if connection.status == psutil.CONN_LISTEN and here and here.port == port and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    return ""
