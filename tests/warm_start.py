"""Start the service's processes from one that has imported their libraries: each costs a second less.

What is its own (the service's modules, settings, environment, output, session) is as for any other start: it
differs from a process that a shell starts by modules that it finds imported, and by nothing else.
"""

import atexit
import multiprocessing
import os
import runpy
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired

ROOT = Path(__file__).resolve().parents[1]
# Those that can be imported before there are settings.
LIBRARIES = [
    *("django.contrib.admin.options", "django.contrib.postgres.fields", "django.core.management"),
    *("django.db.backends.postgresql.base", "django.views", "rest_framework.serializers"),
    *("celery.bin.celery", "celery.apps.worker", "celery.apps.beat", "celery.worker.consumer"),
    *("celery.concurrency.thread", "kombu.transport.redis", "redis.asyncio", "confluent_kafka.admin"),
    *("curl_cffi.requests", "exchange_calendars", "msgspec", "numpy", "rich.console", "structlog", "yaml"),
    *("yfinance",),
]


class WarmProcess:
    """A process as subprocess.Popen gives it, as far as tests use that."""

    def __init__(self, command: str, *, environment: Mapping[str, str], output: Path) -> None:
        output.touch()
        self._process = _context().Process(
            target=_become, args=(shlex.split(command), dict(environment), str(output))
        )
        self._process.start()
        self.pid = self._process.pid or 0

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once it has ended; TimeoutExpired where that takes longer than `timeout` s."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise TimeoutExpired(str(self.pid), timeout or 0)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self._process.exitcode is None:
            # It may have ended, and the one that started it have noticed, before this one has.
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def run(command: str, *, environment: Mapping[str, str]) -> CompletedProcess[str]:
    """Run a command of the Procfile's kind to its end; `stdout` is all that it has written."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "output")
        code = WarmProcess(command, environment=environment, output=output).wait()
        return CompletedProcess(command, code, output.read_text())


def can_start(command: str, environment: Mapping[str, str]) -> bool:
    """Return whether a command of the Procfile can be started so.

    The web server starts processes of its own anew, and a library is preloaded by a program's start alone.
    """
    words = shlex.split(command)
    is_ours = words[0] == "celery" or words[:2] == ["python", "manage.py"]
    return is_ours and sys.platform == "linux" and "LD_PRELOAD" not in environment


def _context() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    return context


def _become(command: list[str], environment: dict[str, str], output: str) -> None:
    """Become the process of this command, in a session of its own."""
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    _redirect(output)
    sys.argv = command[1:] if command[0] == "python" else [str(shutil.which(command[0])), *command[1:]]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        # A process of multiprocessing leaves these out.
        atexit._run_exitfuncs()


def _redirect(output: str) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for target, source in ((0, nothing), (1, file), (2, file)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(file)
