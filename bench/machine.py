"""What the figures were measured on."""

import os
import platform
from pathlib import Path

from django.db import connection


def describe_machine() -> str:
    """Return cores, memory, and the versions that matter, in one line."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        (postgres,) = cursor.fetchone()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = Path("/proc/loadavg").read_text().split()[0] if Path("/proc/loadavg").exists() else "unknown"
    return (
        f"{cores} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}, load before {load},"
        f" Python {platform.python_version()}, PostgreSQL {postgres}"
    )
