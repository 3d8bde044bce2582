"""Which processes stay down. `make run`, which starts them, notes it in files beside the heartbeats."""

import os
from contextlib import suppress

from prices.heartbeat import heartbeat_path

# sysexits.h: something has to be set right by hand, so that starting again does not help.
NEEDS_OPERATOR = os.EX_CONFIG


def stopped_processes() -> dict[str, str]:
    """Return the cause for each process that stays down, by its name."""
    causes = {}
    for path in sorted(heartbeat_path("any").parent.glob("*.stopped")):
        with suppress(FileNotFoundError):
            causes[path.stem] = path.read_text(encoding="utf-8")
    return causes
