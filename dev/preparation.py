"""Runs the product's own commands before its processes start, and reads what `prepare` answers."""

import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dev.groups import end_groups
from dev.guardian import Guardian

POLL_S = 0.05
STOP_TIMEOUT_S = 10
REASON_LINES = 15


class PreparationError(Exception):
    """A command failed; the text has its last lines."""


@dataclass(frozen=True)
class Prepared:
    """What `manage.py prepare --json` made. `password` is None where the user existed before."""

    username: str
    password: str | None
    demo_job: str | None


@dataclass(frozen=True)
class Commands:
    """Where and how the product's commands run. `check` is called between two waits and may raise."""

    folder: Path
    environment: Mapping[str, str]
    guardian: Guardian
    check: Callable[[], None]

    def run(self, command: Sequence[str]) -> str:
        """Run to the end and give what it printed; PreparationError where it fails."""
        with tempfile.TemporaryFile("w+") as printed, tempfile.TemporaryFile("w+") as complaints:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=complaints,
                start_new_session=True,
            )
            self._wait(process)
            texts = [_text(printed), _text(complaints)]
        # A Ctrl-C may reach the command before it has left the terminal's group.
        self.check()
        if process.returncode:
            lines = "".join(f"\n  | {line}" for line in "".join(texts).splitlines()[-REASON_LINES:])
            name = " ".join(command[1:])
            raise PreparationError(f"`{name}` failed (exit code {process.returncode}).{lines}")
        return texts[0]

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        self.guardian.watch(process.pid, stop_signal=signal.SIGTERM)
        try:
            while process.poll() is None:
                self.check()
                time.sleep(POLL_S)
        finally:
            end_groups(
                {process.pid: signal.SIGTERM},
                timeout_s=STOP_TIMEOUT_S,
                ended=lambda _: process.poll() is not None,
            )
            self.guardian.forget(process.pid)


def read_prepared(printed: str) -> Prepared:
    """Read the last line of what `prepare --json` printed."""
    lines = printed.strip().splitlines()
    try:
        answer = json.loads(lines[-1])
        admin = answer["admin"]
        return Prepared(admin["username"], admin["password"], answer["demo_job"])
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise PreparationError(f"`prepare --json` printed no JSON line but {printed[-200:]!r}") from error


def _text(file: IO[str]) -> str:
    file.seek(0)
    return file.read()
