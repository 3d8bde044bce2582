"""Heartbeats: each long-running process touches a file whenever its loop has turned.

`python -m prices.heartbeat NAME` exits with 1, and says why, where that was over 30 s ago. It loads
neither Django nor the settings, so that a health check each few seconds costs next to nothing.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

STALE_AFTER_S = 30.0


def heartbeat_path(name: str) -> Path:
    """Return the file of the process called `name`, in HEARTBEAT_DIR or the system's temporary folder."""
    folder = os.environ.get("HEARTBEAT_DIR") or Path(tempfile.gettempdir()) / "marketdata"
    return Path(folder) / f"{name}.heartbeat"


def touch_heartbeat(name: str) -> None:
    """Note that the loop of the process called `name` has turned just now."""
    path = heartbeat_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def heartbeat_age_s(name: str) -> float | None:
    """Return the seconds since the loop last turned, or None where it never has."""
    try:
        return time.time() - heartbeat_path(name).stat().st_mtime
    except FileNotFoundError:
        return None


def main(name: str) -> int:
    """Print how the process called `name` fares; return 0 where it is well, else 1."""
    age_s = heartbeat_age_s(name)
    if age_s is None:
        report = f"{name}: no heartbeat yet ({heartbeat_path(name)})"
    else:
        report = f"{name}: last turn {age_s:.1f} s ago"
    sys.stdout.write(report + "\n")
    # One of the time to come is of a clock that was set back: a loop that turns touches it again in a moment.
    return 0 if age_s is not None and abs(age_s) <= STALE_AFTER_S else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
