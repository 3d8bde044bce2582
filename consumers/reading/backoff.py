"""Longer and longer pauses between the tries of something that is refused."""

import time

from prices.outage_log import Outage

FIRST_RETRY_S = 0.1
LAST_RETRY_S = 2.0


class Backoff:
    """How long to wait before the next try; the log has a line where it begins, and one where it ends."""

    def __init__(self, outage: Outage) -> None:
        self._outage = outage
        self._retry_s = FIRST_RETRY_S
        self._until = 0.0

    @property
    def is_waiting(self) -> bool:
        """Whether it is too early for the next try."""
        return time.monotonic() < self._until

    def refuse(self, reason: str) -> None:
        """Take note of a try that failed: the next one has to wait, twice as long as the last, up to 2 s."""
        self._outage.begin(reason)
        self._until = time.monotonic() + self._retry_s
        self._retry_s = min(self._retry_s * 2, LAST_RETRY_S)

    def accept(self) -> None:
        """Take note of a try that succeeded."""
        self._outage.end()
        self._retry_s, self._until = FIRST_RETRY_S, 0.0
