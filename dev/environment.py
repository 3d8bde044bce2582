"""The variables that the processes of a run get, and the file that tells them to other terminals."""

import os
import re
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from environ import FileAwareEnv

from dev.checkout import UsageError
from dev.embedded.parts import SETTINGS

SECRET_KEY, HTTPS_ONLY = "SECRET_KEY", "HTTPS_ONLY"
# What another terminal needs to find this run, besides what the user has set.
SHARED = (*SETTINGS, SECRET_KEY, HTTPS_ONLY)
_VARIABLE = re.compile(r"([A-Z][A-Z_]*)=")
# Celery's five lines for each worker: to be root in a container of one's own is no news.
AS_ROOT = "ignore:You're running the worker with superuser privileges"


class Environment:
    """The variables of this process, then the user's `.env`.

    `NAME_FILE` may hold the path of a file with the value of `NAME`, as in settings.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._env = FileAwareEnv()
        if (root / ".env").is_file():
            self._env.read_env(root / ".env", encoding="utf-8-sig")

    def text(self, name: str) -> str:
        """Return a variable's value, "" where it is not set; UsageError where its file cannot be read."""
        try:
            # Not `str`: it takes "$WORD" for the name of another variable.
            return str(self._env.ENVIRON.get(name, "")).strip()
        except OSError as error:
            raise UsageError(f"{name}_FILE names a file that cannot be read: {error.strerror}.") from error

    def given(self, names: tuple[str, ...]) -> set[str]:
        """Return those of the names that have a value."""
        return {name for name in names if self.text(name)}

    def add(self, settings: Mapping[str, str]) -> None:
        """Set what is not set yet."""
        for name, value in settings.items():
            if not self.text(name):
                os.environ[name] = value

    def shared(self) -> dict[str, str]:
        """Return what another terminal needs: its commands see the keys and budgets that this run has."""
        example = self._root / ".env.example"
        lines = example.read_text().splitlines() if example.is_file() else []
        known = [found[1] for line in lines if (found := _VARIABLE.match(line))]
        return {name: self.text(name) for name in SHARED} | {
            name: self.text(name) for name in known if name not in SHARED and self.text(name)
        }

    def for_processes(self, **more: str) -> dict[str, str]:
        """Return all variables for a process: this virtualenv's programs first, output unbuffered."""
        path = os.pathsep.join([str(Path(sys.prefix, "bin")), os.environ.get("PATH", os.defpath)])
        warnings = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), AS_ROOT]))
        return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": warnings, **more}


def keep_secret(file: Path) -> str:
    """Return the secret in the file, made at the first call."""
    if not file.exists():
        write_private(file, secrets.token_urlsafe(50))
    return file.read_text()


def write_private(file: Path, text: str, *, mode: int = 0o600) -> None:
    """Write a file that no other user can read, at no moment."""
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as opened:  # noqa: PTH123  # a descriptor, no path
        opened.write(text)


def settings_text(settings: Mapping[str, str]) -> str:
    """Write settings as django-environ reads them: within single quotes nothing is special."""
    return "".join(f"{name}='{value}'\n" for name, value in settings.items())
