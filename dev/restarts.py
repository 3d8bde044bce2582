"""When a program that ended by itself is started again, and when it stays down."""

import os
from collections import deque

# sysexits.h: something has to be set right by hand, so that starting again does not help.
NEEDS_OPERATOR = os.EX_CONFIG
MOST_ENDS = 5
WITHIN_S = 60.0
FIRST_DELAY_S = 0.5


class Restarts:
    """The recent ends of one program."""

    def __init__(self) -> None:
        self._ends: deque[float] = deque()

    def delay_after_end(self, now: float) -> float | None:
        """Return the seconds until the next start: 0.5, 1, 2, 4; None after five ends within a minute.

        `now` is the monotonic time of the end.
        """
        self._ends.append(now)
        while now - self._ends[0] > WITHIN_S:
            self._ends.popleft()
        if len(self._ends) >= MOST_ENDS:
            return None
        return float(FIRST_DELAY_S * 2 ** (len(self._ends) - 1))
