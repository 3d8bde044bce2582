"""Ends what a killed runner leaves behind.

The runner cannot clean up after a SIGKILL. So it starts this program first, in a session of its own, and
tells it through a pipe what it has started. When the runner is gone, for whatever reason, the pipe ends;
what was told and not taken back is ended then, and files that must not stay are removed.

Unlike Linux' PR_SET_PDEATHSIG this also waits, insists with SIGKILL, reaches grandchildren, does not care
which thread started what, and works on macOS.
"""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from dev.groups import end_groups

ROOT = Path(__file__).resolve().parent.parent
# The consumer may take 10 s to finish its batch.
TIMEOUT_S = 15


class Guardian:
    """The runner's end of the pipe. `inherit` are file descriptors to keep open until all is ended."""

    def __init__(self, *, inherit: Collection[int] = ()) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dev.guardian"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=tuple(inherit),
            bufsize=0,
        )

    def watch(self, leader: int, *, stop_signal: int, rank: int = 0) -> None:
        """End this process group if the runner dies; lower ranks are ended before higher ones."""
        self._tell(watch=leader, stop_signal=stop_signal, rank=rank)

    def forget(self, leader: int) -> None:
        """Take `watch` back: the group has ended."""
        self._tell(forget=leader)

    def remove(self, path: Path) -> None:
        """Remove this file or folder at the end, however it comes, after every group has ended."""
        self._tell(remove=str(path))

    def close(self) -> None:
        """Let the guardian end what it still watches, and wait for it."""
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()

    def _tell(self, **message: Any) -> None:
        pipe = self._process.stdin
        # One write each, below the size that a pipe takes whole: parts are started from several threads.
        with suppress(BrokenPipeError):
            if pipe and not pipe.closed:
                pipe.write(json.dumps(message).encode() + b"\n")


def guard(messages: TextIO) -> None:
    """Read messages until the runner is gone, then end and remove what they left."""
    watched: dict[int, tuple[int, int]] = {}
    paths: list[Path] = []
    for message in map(json.loads, messages):
        if "watch" in message:
            watched[message["watch"]] = (message["rank"], message["stop_signal"])
        elif "forget" in message:
            watched.pop(message["forget"], None)
        else:
            paths.append(Path(message["remove"]))
    for rank in sorted({rank for rank, _ in watched.values()}):
        groups = {leader: number for leader, (its_rank, number) in watched.items() if its_rank == rank}
        end_groups(groups, timeout_s=TIMEOUT_S)
    for path in paths:
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    guard(sys.stdin)
