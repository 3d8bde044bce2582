"""A run with fake processes in place of the product's, in a folder of its own."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from dev.embedded.parts import DATABASE, KAFKA, REDIS
from dev.embedded.ports import kept_port
from dev.guardian import ROOT
from tests.dev.processes import processes_below
from tests.waiting import wait_until

# Given addresses that nobody calls: only what a test is about is started.
ELSEWHERE = {
    DATABASE: "postgres://nobody@127.0.0.1:1/none",
    REDIS: "redis://127.0.0.1:1/0",
    KAFKA: "127.0.0.1:1",
}
# A web server whose child keeps the output open, as granian's worker does.
WEB = """
import http.server, os, subprocess
subprocess.Popen(["sleep", "600"])
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *args): pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Ready).serve_forever()
"""
PREPARED = {"admin": {"username": "admin", "password": "made-up"}, "demo_job": None, "topic": "price-events"}
# All three parts start within 5 s, and much later where other tests run beside this one.
PATIENCE_S = 180
PROCFILE = "web: python web.py\nidle: sleep 600\n"


@dataclass
class FakeRun:
    """One started run in `folder`."""

    folder: Path
    printed: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def output(self) -> str:
        """What it printed until now."""
        return self.printed.read_text()

    def wait_for(self, text: str) -> None:
        """Wait until it has printed `text`."""
        wait_until(lambda: text in self.output, timeout_s=PATIENCE_S, what=f"{text!r} in the output")

    def end(self, number: signal.Signals, *, group: bool = False) -> int:
        """Send a signal to the runner, or to its group as a terminal does; return its exit code."""
        (os.killpg if group else os.kill)(self.process.pid, number)
        return self.process.wait(timeout=PATIENCE_S)

    def wait_for_end(self) -> int:
        """Wait until it ends by itself; return its exit code."""
        return self.process.wait(timeout=PATIENCE_S)

    def leftovers(self) -> list[str]:
        """Name the processes that it started and that still run."""
        return processes_below(self.folder)

    def kill(self) -> None:
        """End it, whatever a test left."""
        self.process.kill()
        self.process.wait()


def start_run(folder: Path, *, parts: tuple[str, ...] = (), **environment: str) -> FakeRun:
    """Start a run with only these parts embedded; files that the test has put there are kept."""
    _write_missing(folder, "Procfile", PROCFILE)
    _write_missing(folder, "web.py", WEB)
    _write_missing(folder, "prepare.py", f"print({json.dumps(PREPARED)!r})")
    given = {name: address for name, address in ELSEWHERE.items() if name not in parts}
    port = kept_port(folder / "port")
    printed = folder / f"output-{len(list(folder.glob('output-*')))}"
    with printed.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.dev.fake_run", folder],
            cwd=ROOT,
            env={
                "PATH": os.environ["PATH"],
                "PORT": str(port),
                "STREAM_PORT": str(kept_port(folder / "stream_port")),
                "RUN_FOLDER": str(folder),
                **given,
                **environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    return FakeRun(folder, printed, port, process)


def _write_missing(folder: Path, name: str, text: str) -> None:
    if not (folder / name).exists():
        (folder / name).write_text(text)
