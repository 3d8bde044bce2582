"""Notes on processes that stay down."""

from pathlib import Path

import pytest

from dev.restarts import NEEDS_OPERATOR as IS_NOT_RESTARTED
from dev.stopped import forget_stopped, note_stopped
from prices.maintenance.stopped_processes import NEEDS_OPERATOR, stopped_processes


@pytest.fixture(autouse=True)
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEARTBEAT_DIR", str(tmp_path / "not-made-yet"))


def test_notes_are_read_by_name() -> None:
    assert stopped_processes() == {}
    note_stopped("poller-finnhub", "first")
    note_stopped("consumer", "it was tr\N{LATIN SMALL LETTER I WITH DIAERESIS}mmed")
    note_stopped("poller-finnhub", "second")
    assert stopped_processes() == {
        "consumer": "it was tr\N{LATIN SMALL LETTER I WITH DIAERESIS}mmed",
        "poller-finnhub": "second",
    }


def test_forgotten_notes_are_gone() -> None:
    note_stopped("consumer", "why")
    forget_stopped()
    assert stopped_processes() == {}


def test_exit_code_is_the_one_that_is_not_restarted() -> None:
    assert NEEDS_OPERATOR == IS_NOT_RESTARTED
