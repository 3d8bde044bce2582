"""Imports go one way: consumers -> prices -> providers; only the project's own files load marketdata."""

import ast
from pathlib import Path

import pytest
from django.conf import settings

ROOT = Path(settings.BASE_DIR)
PACKAGES = {"marketdata", "prices", "providers", "consumers", "dev", "bench", "tests"}
ALLOWED = {
    "providers": {"providers"},
    "prices": {"prices", "providers"},
    "consumers": {"consumers", "prices", "providers"},
    "marketdata": {"marketdata", "prices", "providers", "consumers"},
    "dev": {"dev"},
}


def imported_packages(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names} & PACKAGES


@pytest.mark.parametrize("package", ALLOWED)
def test_package_imports_only_what_lies_below_it(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    wrong = {
        str(path.relative_to(ROOT)): sorted(imported_packages(path) - ALLOWED[package])
        for path in files
        if imported_packages(path) - ALLOWED[package]
    }
    assert wrong == {}


def test_providers_know_nothing_of_models_or_kafka() -> None:
    for path in (ROOT / "providers").rglob("*.py"):
        source = path.read_text()
        assert "django.db" not in source, path
        assert "confluent_kafka" not in source, path
