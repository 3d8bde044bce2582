"""SIGINT, SIGTERM and SIGHUP ask the runner to stop; they never interrupt what it is doing."""

import signal
from types import FrameType

ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequested(Exception):  # noqa: N818  # no error: what the user asked for
    """The user asked to stop."""


class StopRequest:
    """Counts how often it was asked to stop; long steps call `check` between two waits."""

    def __init__(self) -> None:
        self.times = 0

    def listen(self) -> None:
        """Take over the three signals, in the main thread; `nohup` keeps its meaning."""
        for number in ASKING:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._ask)

    def ask(self) -> None:
        """Ask as a signal would."""
        self.times += 1

    def check(self) -> None:
        """Raise StopRequested once somebody has asked."""
        if self.times:
            raise StopRequested

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.ask()
