"""The service's own processes in a benchmark, as the Procfile has them, and what they use."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from django.conf import settings

from bench.usage import Memory, cpu_seconds, memory_of

STOP_TIMEOUT_S = 30
LOG_LINES = 20


@dataclass(frozen=True)
class Usage:
    """CPU as a share of one core, over a time; memory in MB at its end, where it is one process."""

    cpu: float
    memory: Memory | None


class Service:
    """Starts processes, and ends them all on the way out; each writes its log into a file in the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        lines = (Path(settings.BASE_DIR) / "Procfile").read_text().splitlines()
        self._commands = dict(line.split(": ", 1) for line in lines if line)
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *, command: str | None = None) -> None:
        """Start what the Procfile has under this name, or another command under a name of its own."""
        heartbeats = {"HEARTBEAT_DIR": str(self._folder / f"{name}-heartbeats")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with self._log(name).open("ab") as output:
            self._running[name] = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command or self.command(name)}"],
                cwd=settings.BASE_DIR,
                env=os.environ | heartbeats | {"PATH": path},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def command(self, name: str) -> str:
        """Return a process's command in the Procfile."""
        return self._commands[name]

    def pid(self, name: str) -> int:
        """Return the id of a process."""
        return self._running[name].pid

    def check(self) -> None:
        """Raise SystemExit with the end of its log where a process has ended."""
        for name, process in self._running.items():
            if process.poll() is not None:
                lines = self._log(name).read_text().splitlines()[-LOG_LINES:]
                raise SystemExit("\n".join([f"{name} ended (exit code {process.returncode}):", *lines]))

    def cpu_seconds(self) -> dict[str, float]:
        """Return the CPU seconds of each process so far."""
        return {name: cpu_seconds(process.pid) for name, process in self._running.items()}

    def memory(self) -> dict[str, Memory]:
        """Return the memory of each process."""
        return {name: memory_of(process.pid) for name, process in self._running.items()}

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running.values():
            process.send_signal(signal.SIGTERM)
        for process in self._running.values():
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Meter:
    """Measures what processes and parts use from now on, until `read` is called."""

    def __init__(self, service: Service, parts: Mapping[str, int]) -> None:
        self._service = service
        self._parts = parts
        self._began_s = time.monotonic()
        self._began = self._cpu()

    def read(self) -> dict[str, Usage]:
        """Return what each process used, then each part."""
        memory = self._service.memory()
        seconds = time.monotonic() - self._began_s
        return {
            name: Usage((used - self._began[name]) / seconds, memory.get(name))
            for name, used in self._cpu().items()
        }

    def _cpu(self) -> dict[str, float]:
        return self._service.cpu_seconds() | {name: cpu_seconds(pid) for name, pid in self._parts.items()}
