"""Fixtures of the consumer's tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.consumers.samples import EventStore


@pytest.fixture
def make_store(transactional_db: None) -> Iterator[Callable[[], EventStore]]:
    """Yield a function that makes a store, as a process of its own would have one."""
    made: list[EventStore] = []

    def make() -> EventStore:
        made.append(EventStore())
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(make_store: Callable[[], EventStore]) -> EventStore:
    """Return a store on the database of the test."""
    return make_store()


@pytest.fixture
def heartbeats(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the heartbeats of this test's loops in its own folder."""
    monkeypatch.setenv("HEARTBEAT_DIR", str(tmp_path))
