"""What the embedded parts have in common: a folder, a log, one server process."""

import os
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from dev.groups import end_groups, exit_text
from dev.guardian import Guardian

POLL_S = 0.03
STOP_TIMEOUT_S = 20
REASON_LINES = 12
# Parts end after the processes that use them.
RANK = 1


class PartError(Exception):
    """A part cannot run: which part, why, and what to do about it."""

    def __init__(self, part: str, reason: str, *, advice: str) -> None:
        super().__init__(f"{part}: {reason}\n{advice}")
        self.part = part


class Part(ABC):
    """One server. A subclass says how to prepare its folder, the command, and when it is ready.

    `start` and `stop` may follow each other: address and data stay the same.
    """

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    start_timeout_s: ClassVar[float] = 60

    def __init__(self, folder: Path, *, logs: Path, guardian: Guardian) -> None:
        self.folder = folder
        self.log = logs / f"{folder.name}.log"
        self.version = ""
        # For the server, besides those of this process.
        self.variables: dict[str, str] = {}
        self._guardian = guardian
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._stopping = False
        self._closed = False

    @property
    @abstractmethod
    def address(self) -> str:
        """The value of the setting that leads to this part."""

    @property
    def title(self) -> str:
        """Name and version, for people."""
        return f"{self.name} {self.version}".strip()

    @property
    def pid(self) -> int:
        """Process id of the server; PartError where it does not run."""
        if self._process is None:
            raise PartError(self.name, "it does not run", advice="Call start() first.")
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it answers; PartError with the end of its log otherwise."""
        self._stopping = False
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.1"))
        self._prepare()
        self._wait_until_ready(self._launch(self._command()))

    def stop(self) -> None:
        """Stop the server in its own way, within 20 s at most."""
        with self._lock:
            self._stopping = True
            process = self._process
        if process is None:
            return
        end_groups(
            {process.pid: self.stop_signal},
            timeout_s=STOP_TIMEOUT_S,
            ended=lambda _: process.poll() is not None,
        )
        process.wait()
        self._guardian.forget(process.pid)
        self._process = None

    def close(self) -> None:
        """Stop it for good: a start that is under way in another thread fails."""
        with self._lock:
            self._closed = True
        self.stop()

    def kill(self) -> None:
        """End the server as a crash would."""
        if self._process is not None:
            self._process.kill()
            self.stop()

    def failure(self) -> PartError | None:
        """Tell how the server ended if nobody stopped it."""
        process = self._process
        if process is None or self._stopping or process.poll() is None:
            return None
        return self._error(f"it ended by itself ({exit_text(process.returncode)})")

    @abstractmethod
    def _prepare(self) -> None: ...

    @abstractmethod
    def _command(self) -> Sequence[str | Path]: ...

    @abstractmethod
    def _is_ready(self) -> bool: ...

    def _environment(self) -> Mapping[str, str]:
        return os.environ

    def _run_step(self, command: Sequence[str | Path], *, folder: Path | None = None) -> None:
        process = self._launch(command, folder=folder)
        returncode = process.wait()
        self._guardian.forget(process.pid)
        if returncode:
            raise self._error(f"{Path(command[0]).name} failed ({exit_text(returncode)})")

    def _launch(
        self, command: Sequence[str | Path], *, folder: Path | None = None
    ) -> subprocess.Popen[bytes]:
        with self._lock, self.log.open("ab") as log:
            if self._closed:
                raise self._error("it was stopped while starting")
            self._process = process = subprocess.Popen(
                command,
                cwd=folder or self.folder,
                env={**self._environment(), **self.variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # The terminal's Ctrl-C goes to the runner alone; it stops the parts last.
                start_new_session=True,
            )
        self._guardian.watch(process.pid, stop_signal=self.stop_signal, rank=RANK)
        return process

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self.start_timeout_s
        while not self._is_ready():
            if process.poll() is not None:
                raise self._error(f"it ended while starting ({exit_text(process.returncode)})")
            if time.monotonic() > deadline:
                raise self._error(f"it did not answer within {self.start_timeout_s:.0f} s")
            time.sleep(POLL_S)

    def _error(self, reason: str) -> PartError:
        lines = "".join(f"\n  | {line}" for line in last_lines(self.log, count=REASON_LINES))
        return PartError(self.name, f"{reason}.{lines}", advice=self._advice())

    def _advice(self) -> str:
        return (
            f"Its whole log is {self.log}. If its data is damaged, remove {self.folder} "
            "(what it stores is lost) and start again."
        )


def last_lines(log: Path, *, count: int) -> list[str]:
    """Return the end of a log, nothing where there is none."""
    with suppress(FileNotFoundError):
        return log.read_text(errors="replace").splitlines()[-count:]
    return []
