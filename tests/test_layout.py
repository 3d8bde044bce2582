"""No folder holds more modules than a reader takes in. Which way they import each other is the linter's."""

import re
from pathlib import Path

import pytest
from django.conf import settings

ROOT = Path(settings.BASE_DIR)
APPLICATIONS = ["marketdata", "prices", "providers", "consumers"]
MOST_IN_A_FOLDER = 12
# Besides what lies in folders: what others name by its path.
MOST_IN_PRICES = 6
TOP_LEVEL = {*APPLICATIONS, "bench", "dev", "docker", "docs", "tests"}


def modules_of(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("application", ["prices", "providers", "consumers"])
def test_no_folder_is_crowded(application: str) -> None:
    folders = [ROOT / application, *(path for path in (ROOT / application).rglob("*") if path.is_dir())]
    crowded = {
        str(folder.relative_to(ROOT)): modules_of(folder)
        for folder in folders
        if folder.name != "migrations" and len(modules_of(folder)) > MOST_IN_A_FOLDER
    }
    assert crowded == {}


def test_root_of_prices_is_small() -> None:
    assert len(modules_of(ROOT / "prices")) <= MOST_IN_PRICES


def test_no_other_folder_at_the_top() -> None:
    found = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    assert found - {"__pycache__"} <= TOP_LEVEL


def test_providers_use_no_tables() -> None:
    # The linter can forbid Django as a whole and not a part of it.
    using = [str(path) for path in (ROOT / "providers").rglob("*.py") if "django.db" in path.read_text()]
    assert using == []


def paths_told(page: str) -> list[Path]:
    """Return what a page names in backticks: a path from the top, or a file beside the one before."""
    folder, told = ROOT, []
    for name in re.findall(r"`([\w./*-]+(?:\.py|\.toml|/))`", page):
        path = ROOT / name if "/" in name or not (folder / name).exists() else folder / name
        folder = path if name.endswith("/") else path.parent
        told.append(path)
    return told


def test_architecture_names_what_is_there() -> None:
    told = paths_told((ROOT / "docs" / "architecture.md").read_text())
    assert len(told) > 40
    assert [str(path.relative_to(ROOT)) for path in told if not path.exists()] == []


def test_architecture_names_every_folder() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    picture = set(re.findall(r"\w+", page.partition("```text")[2].partition("```")[0]))
    folders = {
        path.name
        for application in APPLICATIONS
        for path in (ROOT / application).iterdir()
        if (path / "__init__.py").exists() and path.name not in {"formats", "migrations"}
    }
    assert folders - picture == set()
