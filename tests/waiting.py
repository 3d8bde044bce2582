"""Waiting for a condition: the only way in which a test waits."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
# A failing test may take so long, a passing one takes what it needs: the machine may be busy, or slow.
PATIENCE_S = 180.0


def wait_until(condition: Callable[[], T], *, timeout_s: float = PATIENCE_S, what: str = "") -> T:
    """Return the condition's first true value. Raises AssertionError once the time is over."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what or condition}")
        time.sleep(0.02)
