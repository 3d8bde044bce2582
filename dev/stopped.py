"""Notes on what stays down, beside the heartbeats: `/readyz` and `manage.py status` read them."""

import os
from contextlib import suppress
from pathlib import Path

SUFFIX = ".stopped"


def note_stopped(name: str, cause: str) -> None:
    """Note that the process or server called `name` stays down, and why."""
    # Without room for a note the screen has it still.
    with suppress(OSError):
        _path(name).parent.mkdir(parents=True, exist_ok=True)
        draft = _path(f"{name}-draft").with_suffix("")
        draft.write_text(cause, encoding="utf-8")
        draft.replace(_path(name))


def forget_stopped(name: str = "*") -> None:
    """Remove the note on `name`, or every note: it is started anew, or has ended."""
    for path in _path("any").parent.glob(f"{name}{SUFFIX}"):
        path.unlink(missing_ok=True)


def _path(name: str) -> Path:
    return Path(os.environ["HEARTBEAT_DIR"]) / f"{name}{SUFFIX}"
