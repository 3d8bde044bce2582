"""Runs the processes of a Procfile, shows their lines, and stops them all together.

honcho reads the file and prints the lines. Its own manager is not used: it waits for a process's output
to end before it notices a crash (a web server's worker keeps it open), cannot be stopped while it starts,
never kills where no process stops, and leaves its helpers behind when it is killed itself.
"""

import queue
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from honcho.colour import get_colours
from honcho.environ import parse_procfile
from honcho.printer import Message, Printer

from dev.groups import kill_group
from dev.guardian import TIMEOUT_S, Guardian
from dev.screen import Output
from dev.stopping import StopRequest

LAST_LINES = 15
# Who prints faster than the terminal takes it waits.
MOST_LINES = 10_000
DRAIN_TIMEOUT_S = 1
POLL_S = 0.1
RUNNER = "run"


@dataclass(frozen=True)
class Line:
    """One line of output."""

    name: str
    text: str | bytes


@dataclass
class Child:
    """One process of the Procfile, the leader of a group of its own."""

    name: str
    colour: str
    process: subprocess.Popen[bytes]
    reader: threading.Thread
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))
    ended: bool = False


class Supervisor:
    """All processes of a Procfile. `failure` tells of something else that ended, in a sentence."""

    def __init__(
        self,
        procfile: Path,
        *,
        environment: Mapping[str, str],
        guardian: Guardian,
        output: Output,
        failure: Callable[[], str],
    ) -> None:
        self._commands: dict[str, str] = parse_procfile(procfile.read_text()).processes
        self._folder = procfile.parent
        self._environment = dict(environment)
        self._guardian = guardian
        self._lines: queue.Queue[Line] = queue.Queue(MOST_LINES)
        self._failure = failure
        self._children: dict[str, Child] = {}
        width = max(map(len, [*self._commands, RUNNER]))
        # Without a time of its own: the processes' lines have theirs.
        self._printer = Printer(output, width=width, time_format="")

    def say(self, text: str) -> None:
        """Print a line of the runner's own, from any thread."""
        self._lines.put(Line(RUNNER, text))

    def run(self, stop: StopRequest) -> str:
        """Start all and run until asked to stop or one ends; give why it ended, "" if it was asked.

        Nothing of the processes is left afterwards.
        """
        try:
            colours = get_colours()
            for name, command in self._commands.items():
                self._children[name] = self._start(name, command, colour=next(colours))
            reason = self._watch(stop)
            self._stop(stop)
        finally:
            self._kill()
        return reason

    def _start(self, name: str, command: str, *, colour: str) -> Child:
        process = subprocess.Popen(
            # A shell for "$PORT"; `exec`, so that signals reach the program itself.
            ["/bin/sh", "-c", f"exec {command}"],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # The terminal's Ctrl-C goes to the runner alone, which stops them in order.
            start_new_session=True,
        )
        self._guardian.watch(process.pid, stop_signal=signal.SIGTERM)
        reader = threading.Thread(target=self._read, args=(name, process), daemon=True)
        reader.start()
        return Child(name, colour, process, reader)

    def _read(self, name: str, process: subprocess.Popen[bytes]) -> None:
        if process.stdout:
            with process.stdout as output:
                for line in output:
                    self._lines.put(Line(name, line))

    def _watch(self, stop: StopRequest) -> str:
        while not stop.times:
            self._print_lines()
            if ended := self._reap():
                return self._crash_text(ended[0])
            if reason := self._failure():
                return reason
        return ""

    def _stop(self, stop: StopRequest) -> None:
        asked = stop.times
        if self._running():
            self._tell("stopping ...")
        for child in self._running():
            child.process.terminate()
        deadline = time.monotonic() + TIMEOUT_S
        while self._running() and time.monotonic() < deadline and stop.times == asked:
            self._print_lines()
            self._reap()
        for child in self._running():
            self._tell(f"{child.name} did not stop and is killed")

    def _kill(self) -> None:
        for child in self._children.values():
            kill_group(child.process.pid)
            child.process.wait()
            self._guardian.forget(child.process.pid)
        deadline = time.monotonic() + DRAIN_TIMEOUT_S
        while any(child.reader.is_alive() for child in self._children.values()):
            self._print_lines()
            if time.monotonic() > deadline:
                break
        self._print_lines()

    def _running(self) -> list[Child]:
        return [child for child in self._children.values() if not child.ended]

    def _reap(self) -> list[Child]:
        ended = [child for child in self._running() if child.process.poll() is not None]
        for child in ended:
            child.ended = True
            # A child that outlives its parent keeps the port, and the output open.
            kill_group(child.process.pid)
            child.reader.join(timeout=DRAIN_TIMEOUT_S)
        return ended

    def _crash_text(self, child: Child) -> str:
        self._print_lines()
        code = child.process.returncode
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        lines = "".join(f"\n  | {line}" for line in child.last_lines)
        return f"{child.name} ended by itself ({how}). Its last lines:{lines or ' none'}"

    def _print_lines(self) -> None:
        with suppress(queue.Empty):
            self._print(self._lines.get(timeout=POLL_S))
            # Not all that come: who prints without end must not keep the others from being looked at.
            for _ in range(self._lines.qsize()):
                self._print(self._lines.get_nowait())

    def _tell(self, text: str) -> None:
        # Not through the queue: while it is full, who empties it would wait for itself.
        self._print(Line(RUNNER, text))

    def _print(self, line: Line) -> None:
        child = self._children.get(line.name)
        text = line.text.decode(errors="replace").rstrip() if isinstance(line.text, bytes) else line.text
        if child:
            child.last_lines.append(text)
        colour = child.colour if child else None
        self._printer.write(Message("line", text, datetime.now(), line.name, colour))  # noqa: DTZ005  # the terminal's clock
