"""A wall clock that a test sets, for processes that it starts, such as Python, PostgreSQL and Java."""

import mmap
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

SOURCE = Path(__file__).with_name("wall_clock.c")
OFFSET_BYTES = 8


class NoCompilerError(Exception):
    """The library that shifts the clock cannot be made here; the text says why."""


class WallClock:
    """The clock of every process that is started with `environment`, and of what these start.

    It is right until it is set. A new setting is seen at once by processes that run. Clocks in one folder
    have different names. NoCompilerError where there is no C compiler, or no Linux.
    """

    def __init__(self, folder: Path, *, name: str = "wall_clock") -> None:
        library = _library_in(folder)
        path = folder / name
        path.write_bytes(bytes(OFFSET_BYTES))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), OFFSET_BYTES)
        # One store of eight bytes, so that no reader sees half of a new offset.
        self._offset_ns = memoryview(self._map).cast("q")
        before = os.environ.get("LD_PRELOAD")
        self.environment: Mapping[str, str] = {
            "LD_PRELOAD": f"{library}:{before}" if before else str(library),
            "WALL_CLOCK": str(path),
        }

    @property
    def ahead(self) -> timedelta:
        """How far it is ahead of the machine's clock; negative where it is behind."""
        return timedelta(microseconds=self._offset_ns[0] / 1000)

    def set_ahead(self, offset: timedelta) -> None:
        """Set it ahead of the machine's clock by `offset`, or behind it by a negative one."""
        self._offset_ns[0] = offset // timedelta(microseconds=1) * 1000

    def set_to(self, moment: datetime) -> None:
        """Set it to a time of day, from which it goes on."""
        self.set_ahead(moment - datetime.now(UTC))


def _library_in(folder: Path) -> Path:
    library = folder / "wall_clock.so"
    return library if library.exists() else _compile(library)


def _compile(library: Path) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if sys.platform != "linux" or compiler is None:
        raise NoCompilerError("the clock can be shifted on Linux only, and with a C compiler (cc) in PATH")
    command: list[str | Path] = [
        compiler,
        "-std=gnu11",
        "-O2",
        "-shared",
        "-fPIC",
        "-o",
        library,
        SOURCE,
        "-ldl",
    ]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise NoCompilerError(f"{compiler} cannot make {SOURCE.name} into a library: {made.stderr.strip()}")
    return library
