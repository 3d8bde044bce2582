"""Process groups: end them all, politely first; how a process ended."""

import os
import signal
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

POLL_S = 0.05


def end_groups(
    groups: Mapping[int, int], *, timeout_s: float, ended: Callable[[int], bool] | None = None
) -> None:
    """Send each leader its signal; SIGKILL every group once all leaders ended, or after `timeout_s`.

    `groups` maps the id of a group's leader to the signal that it understands as "finish". The signal
    goes to the leader alone: it knows best how to stop its own children. `ended` tells whether a leader
    has ended; by default the process table is asked.
    """
    is_over = ended or _is_gone
    for leader, number in groups.items():
        with suppress(ProcessLookupError):
            os.kill(leader, number)
    _wait(groups, is_over, timeout_s=timeout_s)
    for leader in groups:
        kill_group(leader)
    _wait(groups, is_over, timeout_s=1)


def kill_group(leader: int) -> None:
    """Send SIGKILL to what is left of a group; nothing happens where nothing is left."""
    # macOS answers EPERM where only a zombie is left.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def exit_text(returncode: int) -> str:
    """Return how a process ended, in words; `returncode` as subprocess has it."""
    if returncode < 0:
        return f"killed by {signal.Signals(-returncode).name}"
    return f"exit code {returncode}"


def _wait(leaders: Collection[int], is_over: Callable[[int], bool], *, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and not all(is_over(leader) for leader in leaders):
        time.sleep(POLL_S)


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    # Where the first process of a container reaps nothing, a killed orphan stays in the table for good.
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] == "Z"
