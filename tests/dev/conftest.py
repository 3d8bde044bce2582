"""Fixtures for tests of the embedded parts and of `make run`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dev.guardian import Guardian
from tests.dev.processes import processes_below
from tests.dev.runs import FakeRun, start_run
from tests.waiting import wait_until


@pytest.fixture
def guardian() -> Iterator[Guardian]:
    """Yield a guardian that ends what the test has left."""
    guardian = Guardian()
    yield guardian
    guardian.close()


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Callable[..., FakeRun]]:
    """Yield a function that starts a fake run; what it left is ended after the test."""
    started: list[FakeRun] = []

    def start(*, folder: Path = tmp_path, **options: Any) -> FakeRun:
        started.append(start_run(folder, **options))
        return started[-1]

    yield start
    for run in started:
        run.kill()
    wait_until(lambda: not processes_below(tmp_path), what="leftovers end")
