"""`.venv` gets what is asked for, once, and never under a running service."""

import fcntl
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dev.virtualenv import ROOT, InstallError, Virtualenv, unsupported
from tests.waiting import wait_until

PACKAGES = {"requirements-run.txt": ("served",), "requirements-dev.txt": ("served", "tested")}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a checkout that asks for two packages, which pip finds in a folder."""
    root = tmp_path / "checkout, für zwei"
    index = tmp_path / "index"
    index.mkdir()
    (root / "dev").mkdir(parents=True)
    for name in ("__init__.py", "virtualenv.py"):
        (root / "dev" / name).write_bytes((ROOT / "dev" / name).read_bytes())
    for file, packages in PACKAGES.items():
        lines = [f"{name}==1 --hash=sha256:{put_wheel(index, name)}\n" for name in packages]
        (root / file).write_text("".join(lines))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    # As a machine's own pip.conf may have it.
    monkeypatch.setenv("PIP_USER", "1")
    return root


def put_wheel(index: Path, name: str) -> str:
    """Write the wheel of a package with one module; return its SHA-256."""
    wheel = index / f"{name}-1-py3-none-any.whl"
    info = f"{name}-1.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def start_install(checkout: Path, file: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "dev.virtualenv", "install", file],
        cwd=checkout,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def has(checkout: Path, package: str) -> bool:
    command = [str(checkout / ".venv" / "bin" / "python"), "-c", f"import {package}"]
    return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0


def test_two_installs_at_once_wait_for_each_other(checkout: Path) -> None:
    both = [start_install(checkout, file) for file in PACKAGES]
    told = [process.communicate(timeout=300)[0] for process in both]

    assert [process.returncode for process in both] == [0, 0], told
    assert any("Waiting for another make" in text for text in told)
    assert has(checkout, "served")
    assert has(checkout, "tested")
    virtualenv = Virtualenv(checkout)
    assert virtualenv.holds("requirements-run.txt")
    assert virtualenv.holds("requirements-dev.txt")


def test_install_adds_to_a_running_service_and_changes_nothing_below_it(checkout: Path) -> None:
    virtualenv = Virtualenv(checkout)
    virtualenv.install("requirements-run.txt")
    assert has(checkout, "served")
    assert not has(checkout, "tested")
    data = checkout / ".data"
    data.mkdir()
    with (data / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        virtualenv.install("requirements-dev.txt")
        assert has(checkout, "tested")

        (checkout / "requirements-run.txt").write_text("")
        with pytest.raises(InstallError, match="The service runs from this checkout on other packages"):
            virtualenv.install("requirements-run.txt")
        assert has(checkout, "served")

    virtualenv.install("requirements-run.txt")
    assert not has(checkout, "served")


def test_install_after_a_killed_one_is_done_again(checkout: Path) -> None:
    process = start_install(checkout, "requirements-run.txt")
    wait_until((checkout / ".venv").exists, what="it has begun")
    process.kill()
    process.communicate()
    assert not Virtualenv(checkout).holds("requirements-run.txt")

    again = start_install(checkout, "requirements-run.txt")
    again.communicate(timeout=300)

    assert again.returncode == 0
    assert has(checkout, "served")


def test_virtualenv_that_a_link_leads_to_is_not_emptied(checkout: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "kept").touch()
    (checkout / ".venv").symlink_to(other)
    with pytest.raises(InstallError, match="is a link"):
        Virtualenv(checkout).install("requirements-run.txt")
    assert (other / "kept").exists()


def test_install_without_an_index_says_so(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", os.devnull)
    with pytest.raises(InstallError, match="pip could not install the packages"):
        Virtualenv(checkout).install("requirements-run.txt")
    assert not Virtualenv(checkout).holds("requirements-run.txt")


def test_virtualenv_of_another_path_holds_nothing(tmp_path: Path) -> None:
    for file in PACKAGES:
        (tmp_path / file).write_text("")
    virtualenv = Virtualenv(tmp_path)
    (tmp_path / ".venv").mkdir()
    held = (ROOT / ".venv" / "installed").read_text() if (ROOT / ".venv").exists() else "Python 3.11 /else"
    (tmp_path / ".venv" / "installed").write_text(held)
    assert not virtualenv.holds("requirements-run.txt")


def test_this_machine_is_supported() -> None:
    assert unsupported() == ""


@pytest.mark.parametrize(
    ("version", "confstr", "reason"),
    [
        ((3, 15), "glibc 2.36", "CPython "),
        ((3, 10), "glibc 2.36", "CPython "),
        ((3, 12), None, "a Linux without glibc (musl)"),
        ((3, 12), "glibc 2.17", "glibc 2.17"),
    ],
)
def test_other_machines_are_named(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], confstr: str | None, reason: str
) -> None:
    monkeypatch.setattr(sys, "version_info", (*version, 0))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")

    def glibc(name: str) -> str:
        if confstr is None:
            raise ValueError("unrecognized configuration name")
        return confstr

    monkeypatch.setattr(os, "confstr", glibc)
    assert unsupported().startswith(reason)
