"""The checks of the source, run with the tests."""

import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

ROOT = Path(settings.BASE_DIR)


@pytest.mark.parametrize(
    "arguments",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["django", "makemigrations", "--check", "--dry-run"],
        ["django", "spectacular", "--validate", "--fail-on-warn", "--file", "/dev/null"],
    ],
    ids=lambda arguments: "-".join(arguments[:2]),
)
def test_check_finds_nothing(arguments: list[str]) -> None:
    run(sys.executable, "-m", *arguments)


def test_imports_go_one_way() -> None:
    run(str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo")


def run(*command: str) -> None:
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
