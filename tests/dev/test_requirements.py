"""What is pinned, and that each supported Python and machine has a wheel of it."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from itertools import pairwise
from pathlib import Path

import pytest

from dev.virtualenv import FILES, ROOT

MACHINES = ["x86_64-manylinux_2_28", "aarch64-manylinux_2_28", "aarch64-apple-darwin", "x86_64-apple-darwin"]
# What uv says where there is an index, and in it no wheel.
NO_WHEEL = re.compile(r"no (usable|matching) wheels|no version of|No solution found")


def pinned(file: str) -> dict[str, str]:
    """Return each pinned package with its version and hashes."""
    text = (ROOT / file).read_text()
    return {
        found[1]: found[0] for found in re.finditer(r"^([\w.-]+)==.*(?:\n +--hash.*)*", text, re.MULTILINE)
    }


def asked_for(file: str) -> set[str]:
    """Return the packages that a file names, and those of the files that it includes."""
    names = set()
    for line in (ROOT / file).read_text().splitlines():
        if line.startswith("-r "):
            names |= asked_for(line[3:])
        elif found := re.match(r"[\w.-]+", line):
            names.add(normal(found[0]))
    return names


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(folders: tuple[str, ...]) -> Iterator[str]:
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0]


@pytest.mark.parametrize(
    ("file", "folders"),
    [
        ("requirements.in", ("consumers", "marketdata", "prices", "providers")),
        ("requirements-dev.in", ("bench", "dev", "tests")),
    ],
)
def test_what_is_imported_is_asked_for_by_name(file: str, folders: tuple[str, ...]) -> None:
    distributions = packages_distributions()
    packages = {module for module in imported(folders) if module not in sys.stdlib_module_names}
    owners = {module: {normal(name) for name in distributions.get(module, ())} for module in packages}
    asked = asked_for(file)
    assert {module for module, names in owners.items() if names and not names & asked} == set()


def test_each_file_pins_all_of_the_one_before() -> None:
    files = ["requirements.txt", *FILES]
    for smaller, larger in pairwise(files):
        assert pinned(smaller).items() <= pinned(larger).items()


def test_run_installs_no_tools() -> None:
    tools = {"hypothesis", "mypy", "pytest", "ruff", "uv"}
    names = set(pinned("requirements-run.txt"))
    assert names & tools == set()
    assert not [name for name in names if "stubs" in name or name.startswith("types-")]
    assert tools <= set(pinned("requirements-dev.txt"))


def test_newest_python_has_a_wheel_of_each_package() -> None:
    check_wheels("requirements-run.txt", version="3.14", machine=MACHINES[0])


@pytest.mark.soak
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_each_python_has_a_wheel_of_each_package(version: str, machine: str) -> None:
    check_wheels("requirements-dev.txt", version=version, machine=machine)


def check_wheels(file: str, *, version: str, machine: str) -> None:
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--no-header"]
    told = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("uv")), "pip", "compile", str(ROOT / file), *options),
            *("--python-version", version, "--python-platform", machine),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if told.returncode and not NO_WHEEL.search(told.stderr):
        pytest.skip(f"uv cannot ask a package index: {told.stderr.strip()[-300:]}")
    assert told.returncode == 0, told.stderr
