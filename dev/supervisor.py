"""Runs the processes of a Procfile, shows their lines, restarts what ends, and stops them all together.

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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from honcho.colour import get_colours
from honcho.environ import parse_procfile
from honcho.printer import Message, Printer

from dev.groups import exit_text, kill_group
from dev.guardian import TIMEOUT_S, Guardian
from dev.restarts import MOST_ENDS, NEEDS_OPERATOR, Restarts
from dev.screen import Output
from dev.stopped import forget_stopped, note_stopped
from dev.stopping import StopRequest

LAST_LINES = 15
# Who prints faster than the terminal takes it waits.
MOST_LINES = 10_000
DRAIN_TIMEOUT_S = 1
POLL_S = 0.1
RUNNER = "run"
# Without it nobody sees anything: where it cannot start, all is stopped.
WEB = "web"
MOST_CAUSE_CHARACTERS = 500


@dataclass(frozen=True)
class Line:
    """One line of output."""

    name: str
    text: str | bytes


@dataclass
class Child:
    """One program of the Procfile; its process leads a group of its own. `start_at` is a monotonic time."""

    name: str
    command: str
    colour: str
    process: subprocess.Popen[bytes] | None = None
    reader: threading.Thread | None = None
    start_at: float | None = 0.0
    restarts: Restarts = field(default_factory=Restarts)
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))


class Supervisor:
    """All processes of a Procfile; one that ends by itself is started again, and the others go on.

    `each_turn` is called a few times a second; what it returns is printed.
    """

    def __init__(
        self,
        procfile: Path,
        *,
        environment: Mapping[str, str],
        guardian: Guardian,
        output: Output,
        each_turn: Callable[[], Sequence[str]],
    ) -> None:
        commands: dict[str, str] = parse_procfile(procfile.read_text()).processes
        self._children = {
            name: Child(name, command, colour)
            for (name, command), colour in zip(commands.items(), get_colours(), strict=False)
        }
        self._folder = procfile.parent
        self._environment = dict(environment)
        self._guardian = guardian
        self._lines: queue.Queue[Line] = queue.Queue(MOST_LINES)
        self._each_turn = each_turn
        width = max(map(len, [*commands, RUNNER]))
        # Without a time of its own: the processes' lines have theirs.
        self._printer = Printer(output, width=width, time_format="")

    def say(self, text: str) -> None:
        """Print lines of the runner's own, from any thread."""
        for line in text.splitlines():
            self._lines.put(Line(RUNNER, line))

    def run(self, stop: StopRequest) -> str:
        """Run all until asked to stop, or until the web server cannot start.

        Return why it ended, "" if it was asked. Nothing of the processes is left afterwards.
        """
        try:
            forget_stopped()
            reason = self._watch(stop)
            self._stop(stop)
        finally:
            self._kill()
            forget_stopped()
        return reason

    def _start(self, child: Child) -> None:
        process = subprocess.Popen(
            # A shell for "$PORT"; `exec`, so that signals reach the program itself.
            ["/bin/sh", "-c", f"exec {child.command}"],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # The terminal's Ctrl-C goes to the runner alone, which stops them in order.
            start_new_session=True,
        )
        self._guardian.watch(process.pid, stop_signal=signal.SIGTERM)
        child.process, child.start_at = process, None
        child.last_lines.clear()
        child.reader = threading.Thread(target=self._read, args=(child.name, process), daemon=True)
        child.reader.start()

    def _read(self, name: str, process: subprocess.Popen[bytes]) -> None:
        if process.stdout:
            with process.stdout as output:
                for line in output:
                    self._lines.put(Line(name, line))

    def _watch(self, stop: StopRequest) -> str:
        while not stop.times:
            for child in self._due():
                self._start(child)
            self._print_lines()
            for child, code in self._reap():
                if reason := self._restart_later(child, code):
                    return reason
            for text in self._each_turn():
                self._announce(text)
        return ""

    def _due(self) -> list[Child]:
        now = time.monotonic()
        return [
            child for child in self._children.values() if child.start_at is not None and child.start_at <= now
        ]

    def _restart_later(self, child: Child, code: int) -> str:
        """Plan the next start, or note that there is none; return a reason to stop all, or ""."""
        self._print_lines()
        ended = f"{child.name} ended by itself ({exit_text(code)})"
        delay_s = None if code == NEEDS_OPERATOR else child.restarts.delay_after_end(time.monotonic())
        quoted = "".join(f"\n  | {line}" for line in child.last_lines) or " none"
        if delay_s is not None:
            child.start_at = time.monotonic() + delay_s
            self._announce(f"{ended} and is started again in {delay_s:g} s. Its last lines:{quoted}")
            return ""
        often = "" if code == NEEDS_OPERATOR else f" {MOST_ENDS} times within a minute"
        if child.name == WEB:
            return f"{ended}{often}. Its last lines:{quoted}"
        self._announce(f"{ended}{often} and stays down; the others go on. Its last lines:{quoted}")
        last_line = next((line for line in reversed(child.last_lines) if line.strip()), "it printed nothing")
        note_stopped(child.name, f"{ended}{often} and stays down: {last_line[:MOST_CAUSE_CHARACTERS]}")
        return ""

    def _stop(self, stop: StopRequest) -> None:
        asked = stop.times
        if self._running():
            self._announce("stopping ...")
        for _, process in self._running():
            process.terminate()
        deadline = time.monotonic() + TIMEOUT_S
        while self._running() and time.monotonic() < deadline and stop.times == asked:
            self._print_lines()
            self._reap()
        for child, _ in self._running():
            self._announce(f"{child.name} did not stop and is killed")

    def _kill(self) -> None:
        for _, process in self._running():
            kill_group(process.pid)
            process.wait()
        self._reap()
        deadline = time.monotonic() + DRAIN_TIMEOUT_S
        while any(child.reader and child.reader.is_alive() for child in self._children.values()):
            self._print_lines()
            if time.monotonic() > deadline:
                break
        self._print_lines()

    def _running(self) -> list[tuple[Child, subprocess.Popen[bytes]]]:
        return [(child, child.process) for child in self._children.values() if child.process]

    def _reap(self) -> list[tuple[Child, int]]:
        ended = []
        for child, process in self._running():
            if (code := process.poll()) is None:
                continue
            # A child that outlives its parent keeps the port, and the output open.
            kill_group(process.pid)
            self._guardian.forget(process.pid)
            child.process = None
            if child.reader:
                child.reader.join(timeout=DRAIN_TIMEOUT_S)
            ended.append((child, code))
        return ended

    def _print_lines(self) -> None:
        with suppress(queue.Empty):
            self._print(self._lines.get(timeout=POLL_S))
            # Not all that come: who prints without end must not keep the others from being looked at.
            for _ in range(self._lines.qsize()):
                self._print(self._lines.get_nowait())

    def _announce(self, text: str) -> None:
        # Not through the queue: while it is full, who empties it would wait for itself.
        for line in text.splitlines():
            self._print(Line(RUNNER, line))

    def _print(self, line: Line) -> None:
        child = self._children.get(line.name)
        text = line.text.decode(errors="replace").rstrip() if isinstance(line.text, bytes) else line.text
        if child:
            child.last_lines.append(text)
        colour = child.colour if child else None
        self._printer.write(Message("line", text, datetime.now(), line.name, colour))  # noqa: DTZ005  # the terminal's clock
