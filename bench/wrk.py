"""Load on a web server by wrk, which goes through a list of addresses."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CONNECTIONS = 16
_SCRIPT = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True)
class Load:
    """What came of a run: answers a second, latencies in ms, and the answers that were no success."""

    per_second: float
    median_ms: float
    p99_ms: float
    errors: int


def load(port: int, addresses: Sequence[str], *, seconds: int) -> Load:
    """Ask a server on loopback for the addresses in turn, over 16 connections.

    An address may be followed by a tab and a header. Raises SystemExit where there is no wrk.
    """
    program = shutil.which("wrk")
    if program is None:
        raise SystemExit("wrk is not installed (Debian: apt install wrk)")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(addresses))
        file.flush()
        done = subprocess.run(
            [
                program,
                "-t1",
                f"-c{CONNECTIONS}",
                f"-d{seconds}",
                "--timeout",
                "10",
                "-s",
                _SCRIPT,
                f"http://127.0.0.1:{port}",
            ],
            env=os.environ | {"ADDRESSES": file.name},
            check=True,
            capture_output=True,
            text=True,
        )
    figures = next(line for line in done.stdout.splitlines() if line.startswith("figures"))
    answers, microseconds, median, p99, errors = (float(figure) for figure in figures.split()[1:])
    return Load(answers / microseconds * 1e6, median / 1e3, p99 / 1e3, int(errors))
