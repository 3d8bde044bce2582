"""The product's own processes, as the Procfile starts them, on the database of the test."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psutil
import redis
import requests
from django.conf import settings
from django.db import connection

from dev.embedded.ports import free_port
from dev.guardian import Guardian
from tests.warm_start import WarmProcess, can_start

ROOT = Path(settings.BASE_DIR)
# Queues of their own: whatever a killed worker left behind stays out of the next test.
REDIS_DATABASE = "/9"
STOP_TIMEOUT_S = 60


class Product:
    """Starts and ends processes of the Procfile by their names."""

    def __init__(self, folder: Path, **changes: str) -> None:
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes] | WarmProcess] = {}
        self._commands = dict(
            line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines() if line
        )
        self._port, self._stream_port = free_port(), free_port()
        self._environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DATABASE_URL": database_url(),
            "REDIS_URL": _with_path(os.environ["REDIS_URL"], REDIS_DATABASE),
            "KAFKA_BOOTSTRAP_SERVERS": settings.KAFKA_BOOTSTRAP_SERVERS,
            "KAFKA_TOPIC": settings.KAFKA_TOPIC,
            "KAFKA_CONSUMER_GROUP": settings.KAFKA_CONSUMER_GROUP,
            "PORT": str(self._port),
            "STREAM_PORT": str(self._stream_port),
            "HEARTBEAT_DIR": str(folder / "heartbeats"),
            **changes,
        }
        redis.Redis.from_url(self._environment["REDIS_URL"]).flushdb()

    def set_environment(self, **changes: str) -> None:
        """Change variables of what is started from now on."""
        self._environment |= changes

    def set_command(self, name: str, command: str) -> None:
        """Start another command in a process's place from now on."""
        self._commands[name] = command

    def command(self, name: str) -> str:
        """Return the command of a process."""
        return self._commands[name]

    def start(self, *names: str) -> None:
        """Start these processes; their output goes to files in the folder."""
        for name in names:
            self._running[name] = self._start(self._commands[name], self.log(name))
            _guardian().watch(self._running[name].pid, stop_signal=signal.SIGKILL)

    def _start(self, command: str, log: Path) -> subprocess.Popen[bytes] | WarmProcess:
        if can_start(command, self._environment):
            return WarmProcess(command, environment=self._environment, output=log)
        with log.open("ab") as output:
            return subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def send_signal(self, name: str, number: signal.Signals) -> None:
        """Send a process a signal."""
        self._running[name].send_signal(number)

    def pid(self, name: str) -> int:
        """Return the id of a process that was started."""
        return self._running[name].pid

    def exit_code(self, name: str) -> int | None:
        """Return the exit code of a process that was started; None while it runs."""
        return self._running[name].poll()

    def kill(self, name: str) -> None:
        """End a process and its children at once, as a crash would."""
        process = self._running.pop(name)
        # It may have ended by itself.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        # One that has only begun has no session of its own yet.
        process.kill()
        process.wait()
        _guardian().forget(process.pid)

    def stop(self, name: str) -> int:
        """Ask a process to end; return its exit code."""
        process = self._running.pop(name)
        process.terminate()
        return _wait_for(process)

    def stop_all(self) -> dict[str, int]:
        """Ask all processes at once to end; return their exit codes."""
        for process in self._running.values():
            process.terminate()
        ending, self._running = self._running, {}
        return {name: _wait_for(process) for name, process in ending.items()}

    def is_healthy(self, name: str) -> bool:
        """Tell what the process's health check tells."""
        if name == "web":
            return _answers(f"http://{self.address}/readyz")
        check = [sys.executable, "-m", "prices.heartbeat", name]
        return subprocess.run(check, cwd=ROOT, env=self._environment, check=False).returncode == 0

    def is_serving(self, name: str) -> bool:
        """Tell whether a server's port takes connections."""
        port = self._port if name == "web" else self._stream_port
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
        return False

    @property
    def streams(self) -> int:
        """How many connections the stream's server has."""
        return sum(
            each.laddr.port == self._stream_port and each.status == psutil.CONN_ESTABLISHED
            for each in psutil.Process(self.pid("stream")).net_connections("tcp")
        )

    @property
    def names(self) -> list[str]:
        """Every process of the Procfile."""
        return list(self._commands)

    @property
    def address(self) -> str:
        """Host and port of the web server."""
        return f"127.0.0.1:{self._port}"

    @property
    def stream_address(self) -> str:
        """Host and port of the stream's server."""
        return f"127.0.0.1:{self._stream_port}"

    @property
    def database_url(self) -> str:
        """The database that the processes share, as libpq reads it."""
        return self._environment["DATABASE_URL"]

    @property
    def redis_url(self) -> str:
        """The Redis database that the processes share."""
        return self._environment["REDIS_URL"]

    def close(self) -> None:
        """End whatever runs."""
        for name in list(self._running):
            self.kill(name)

    def log(self, name: str) -> Path:
        """Return the file of a process's output."""
        return self._folder / f"{name}.log"


@cache
def _guardian() -> Guardian:
    """Return what ends the processes of tests that are killed: each process is in a session of its own."""
    return Guardian()


def _wait_for(process: subprocess.Popen[bytes] | WarmProcess) -> int:
    code = process.wait(STOP_TIMEOUT_S)
    _guardian().forget(process.pid)
    return code


def _answers(address: str) -> bool:
    try:
        return requests.get(address, timeout=5).ok
    except (requests.ConnectionError, requests.Timeout):
        return False


def database_url() -> str:
    """Return the address of the test's own database, for another process."""
    return _with_path(os.environ["DATABASE_URL"], f"/{connection.settings_dict['NAME']}")


def _with_path(address: str, path: str) -> str:
    return urlunsplit(urlsplit(address)._replace(path=path))
