"""The order of the tests in a run of several workers: those that start processes do not come last.

pytest-xdist gives each worker one stretch of the list, and what is left to those that are done. In the
alphabet's order the tests of whole processes were one stretch: they ran last, all at once and each waiting
for the others, while the two cores had been a quarter idle before.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# What lies in these folders themselves starts processes and waits for them.
SLOW_FOLDERS = {TESTS, TESTS / "chaos", TESTS / "clocks", TESTS / "dev", TESTS / "consumers" / "management"}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let half of the workers begin with the slow tests."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        slow = [item for item in items if item.path.parent in SLOW_FOLDERS]
        fast = [item for item in items if item.path.parent not in SLOW_FOLDERS]
        items[:] = ordered(slow, fast, stretches=workers)


def ordered(slow: Sequence[pytest.Item], fast: Sequence[pytest.Item], *, stretches: int) -> list[pytest.Item]:
    """Return all, so that the first half of as many equal stretches begin with a share of the slow ones."""
    heads = stretches // 2
    length = (len(slow) + len(fast)) // stretches
    left, found = list(fast), []
    for head in range(heads):
        share = slow[head::heads]
        taken = max(length - len(share), 0)
        found += [*share, *left[:taken]]
        left = left[taken:]
    return found + left
