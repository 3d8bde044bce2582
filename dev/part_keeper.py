"""Keeps the embedded parts going: starts again what ended by itself, and keeps their logs small."""

import shutil
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from dev.embedded.part import Part, PartError
from dev.restarts import MOST_ENDS, Restarts
from dev.stopped import forget_stopped, note_stopped

MOST_LOG_BYTES = 10_000_000
LOG_LOOK_S = 5.0
# Not for good, as with a process: a full disk ends several parts, until there is room again.
NEXT_TRY_S = 60.0


@dataclass
class _Kept:
    part: Part
    restarts: Restarts = field(default_factory=Restarts)
    start_at: float | None = None
    start: threading.Thread | None = None
    failed_start: PartError | None = None

    @property
    def is_starting(self) -> bool:
        return self.start is not None and self.start.is_alive()


class PartKeeper:
    """Looks after the parts each time that `look` is called."""

    def __init__(self, parts: Collection[Part]) -> None:
        self._kept = [_Kept(part) for part in parts]
        self._next_log_look = 0.0

    def look(self) -> list[str]:
        """Start what ended by itself, after a pause; return what people should know. Never waits."""
        self._look_at_logs()
        idle = [kept for kept in self._kept if not kept.is_starting]
        return [text for kept in idle if (text := _look_at(kept))]

    def _look_at_logs(self) -> None:
        if time.monotonic() >= self._next_log_look:
            self._next_log_look = time.monotonic() + LOG_LOOK_S
            for kept in self._kept:
                limit_log(kept.part.log)


def limit_log(log: Path) -> None:
    """Move what a log holds to `NAME.log.1` once it is over 10 MB.

    It is copied and emptied, since the server has it open: lines written just then may be lost.
    """
    try:
        if log.stat().st_size <= MOST_LOG_BYTES:
            return
        shutil.copyfile(log, log.with_suffix(".log.1"))
    except OSError:  # not there yet, or no room for the copy
        return
    with log.open("r+b") as opened:
        opened.truncate(0)


def _start(kept: _Kept) -> None:
    try:
        # Also what its children left, and a server that runs and does not answer.
        kept.part.stop()
        kept.part.start()
    except PartError as error:
        kept.failed_start = error
    except OSError as error:  # a full disk
        kept.failed_start = PartError(kept.part.name, f"{error.strerror}: {error.filename}.", advice="")


def _look_at(kept: _Kept) -> str:
    if kept.start_at is not None:
        if time.monotonic() >= kept.start_at:
            kept.start_at = None
            kept.start = threading.Thread(target=_start, args=(kept,), daemon=True)
            kept.start.start()
        return ""
    failure, kept.failed_start = kept.failed_start or kept.part.failure(), None
    has_started, kept.start = kept.start is not None, None
    if failure is not None:
        return _restart_later(kept, failure)
    if not has_started:
        return ""
    forget_stopped(kept.part.name)
    return f"{kept.part.name} runs again."


def _restart_later(kept: _Kept, failure: PartError) -> str:
    delay_s = kept.restarts.delay_after_end(time.monotonic())
    kept.start_at = time.monotonic() + (delay_s or NEXT_TRY_S)
    if delay_s is not None:
        return f"{failure}\n{kept.part.name} is started again in {delay_s:g} s."
    often = f"It ended {MOST_ENDS} times within a minute and is down; it is tried each {NEXT_TRY_S:g} s."
    note_stopped(kept.part.name, f"{str(failure).splitlines()[0]} {often}")
    return f"{failure}\n{often}"
