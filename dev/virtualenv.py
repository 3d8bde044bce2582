"""Make `.venv`, and install what `make run` or `make test` needs into it.

The Makefile calls `python -m dev.virtualenv install requirements-run.txt` before anything is installed: only
the standard library is used here. `.venv/installed` tells which path and Python `.venv` was made for and what
it holds; `check` exits with 1 where that is not what is asked for.
"""

import fcntl
import hashlib
import os
import platform
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
# Each file holds all that the one before it holds, in the same versions.
FILES = ("requirements-run.txt", "requirements-dev.txt")
SUPPORTED = (
    "CPython 3.11 to 3.14 on Linux with glibc 2.28 or newer (x86_64 or aarch64), or on macOS. "
    "Elsewhere `docker compose up --build` runs the service."
)
# A shell or the PATH would not take them as they are.
UNUSABLE = set('"$`\\:\n')
OLDEST_GLIBC = (2, 28)
MACHINES = {"linux": {"x86_64", "aarch64"}, "darwin": {"x86_64", "arm64"}}


class InstallError(Exception):
    """Nothing can be installed; the text says why and what to do."""


class Virtualenv:
    """The folder `.venv` of a checkout, for the Python that runs this."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / ".venv"
        self._python = self._folder / "bin" / "python"
        self._record = self._folder / "installed"

    def holds(self, file: str) -> bool:
        """Return whether all of a requirements file, as it is now, is installed for this path and Python."""
        return set(self._lines(file)) <= set(self._recorded())

    def install(self, file: str) -> None:
        """Install a requirements file. Wait where another process installs; raise InstallError."""
        if UNUSABLE & set(str(self._root)):
            raise InstallError(f'The path {self._root} holds one of " $ ` \\ : and cannot be used; move it.')
        with self._lock() as lock:
            works = self._works()
            if works and self.holds(file):
                return
            if not works or not set(self._recorded()) <= set(self._lines(FILES[-1])):
                self._make(lock)
            print(f"Installing {file} into .venv (once, less than a minute) ...", flush=True)
            self._pip(file, lock)
            self._record.write_bytes("\n".join(self._lines(file)).encode(errors="surrogateescape"))

    def _lines(self, file: str) -> list[str]:
        made_for = f"Python {sys.version_info[0]}.{sys.version_info[1]} {self._root}"
        return [made_for, *(self._line(name) for name in FILES[: FILES.index(file) + 1])]

    def _line(self, file: str) -> str:
        return f"{file} {hashlib.sha256((self._root / file).read_bytes()).hexdigest()}"

    def _recorded(self) -> list[str]:
        try:
            return self._record.read_bytes().decode(errors="surrogateescape").splitlines()
        except FileNotFoundError:
            return []

    def _works(self) -> bool:
        try:
            return self._record.exists() and not self._call("-c", "")
        except OSError:
            return False

    def _make(self, lock: IO[str]) -> None:
        if _is_locked(self._root / ".data" / "lock"):
            raise InstallError(
                "The service runs from this checkout on other packages than it wants now. "
                "Stop it (Ctrl-C in its terminal), then start this again."
            )
        if self._folder.is_symlink():
            # It would be emptied where it leads to, which is another checkout's.
            raise InstallError(
                f"{self._folder} is a link, and what it leads to is not what this checkout wants. Delete the"
                " link, then start this again."
            )
        self._record.unlink(missing_ok=True)
        made = subprocess.run(
            [sys.executable, "-m", "venv", "--clear", self._folder], check=False, pass_fds=[lock.fileno()]
        )
        if made.returncode:
            raise InstallError(f"{sys.executable} could not make {self._folder}; its own words are above.")

    def _pip(self, file: str, lock: IO[str]) -> None:
        # The lock is pip's as well: a killed make must not let the next one in beside it.
        failed = self._call(
            *("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"),
            *("--require-hashes", "--only-binary", ":all:", "--requirement", str(self._root / file)),
            pass_fds=[lock.fileno()],
        )
        if failed:
            raise InstallError(
                "pip could not install the packages; its own words are above. It needs a package index, PyPI "
                "or the one of its settings. Once that is mended, start this again."
            )
        # All cores at once; pip would take one.
        self._call("-m", "compileall", "-qq", "-j", "0", str(self._folder / "lib"))

    def _call(self, *words: str, pass_fds: list[int] | None = None) -> int:
        # A virtualenv has no user's folder, which pip's settings may ask for.
        environment = {**os.environ, "PIP_USER": "0"}
        return subprocess.run(
            [self._python, *words], check=False, env=environment, pass_fds=pass_fds or []
        ).returncode

    @contextmanager
    def _lock(self) -> Iterator[IO[str]]:
        with (self._root / ".venv.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("Waiting for another make that installs into .venv ...", flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file


def unsupported() -> str:
    """Return what about this Python or machine has no packages, "" where all is well."""
    if sys.implementation.name != "cpython" or not (3, 11) <= sys.version_info[:2] <= (3, 14):
        return f"{platform.python_implementation()} {platform.python_version()}"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return f"the free-threaded Python {platform.python_version()}"
    if platform.machine() not in MACHINES.get(sys.platform, ()):
        return f"{sys.platform} on {platform.machine()}"
    if sys.platform == "linux" and not _glibc() >= OLDEST_GLIBC:
        return f"glibc {'.'.join(map(str, _glibc()))}" if _glibc() else "a Linux without glibc (musl)"
    return ""


def _glibc() -> tuple[int, ...]:
    # musl does not know the name.
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        text = ""
    return tuple(int(part) for part in text.removeprefix("glibc").strip().split(".")[:2] if part.isdigit())


def _is_locked(file: Path) -> bool:
    try:
        with file.open() as opened:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def main(command: str, file: str) -> int | str:
    """Return the exit code, or a sentence of what went wrong."""
    virtualenv = Virtualenv(ROOT)
    if command == "check":
        return int(not virtualenv.holds(file))
    if reason := unsupported():
        return f"There are no packages for {reason}. Supported is {SUPPORTED}"
    try:
        virtualenv.install(file)
    except InstallError as error:
        return str(error)
    except PermissionError as error:
        return f"{error.filename} belongs to another user. Give it to yourself (sudo chown) or remove it."
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
