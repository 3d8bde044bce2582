"""CPU and memory of processes, as Linux tells them in /proc."""

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Memory:
    """Resident memory in MB: now, and at most so far."""

    last_mb: float
    peak_mb: float


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process and of all that it has started, ended ones too."""
    used, parents = _read_all()
    ours = {pid}
    while more := {child for child, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return sum(used.get(each, 0.0) for each in ours)


def memory_of(pid: int) -> Memory:
    """Return the memory of one process alone. Raises FileNotFoundError where it has ended."""
    status = Path(f"/proc/{pid}/status").read_text()

    def megabytes(name: str) -> float:
        return int(status.partition(f"{name}:")[2].split()[0]) / 1024

    return Memory(last_mb=megabytes("VmRSS"), peak_mb=megabytes("VmHWM"))


def _read_all() -> tuple[dict[int, float], dict[int, int]]:
    used: dict[int, float] = {}
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name may hold blanks and brackets; the numbers follow the last one.
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
        pid = int(path.parent.name)
        parents[pid] = int(fields[1])
        # Its own time, and that of its children that have ended.
        used[pid] = sum(map(int, fields[11:15])) / _TICKS_A_SECOND
    return used, parents
