"""django-celery-beat's own tests of its scheduler hold for the one that takes its place.

They come with its source distribution, which pip fetches once into .data/upstream/: of the version
and with the hash that requirements.txt has.
"""

import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from xml.etree import ElementTree

import pytest
from django.conf import settings

ROOT = Path(settings.BASE_DIR)
CACHE = ROOT / ".data" / "upstream"
# Each turns in a loop or waits for so long.
SLOW = ["test_crontab_with_start_time_tick", "test_heap_always_return_the_first_item"]
# Celery's own clean-up is due at 4:00: then it lies on the heap where this one expects its own task.
NOT_AT_FOUR = ["test_starttime_trigger"]
CANNOT_HOLD = {
    "test_sync_saves_last_run_at": "when a task last ran is written without a mark of change, for which all"
    " tasks would be read anew",
    "test_heap_always_return_the_first_item": "with these versions the stock scheduler fails it as well",
}
# pytest 9 refuses a mark on a fixture; the class has it as well.
_MARKED_FIXTURE = "    @pytest.mark.django_db\n    @pytest.fixture"


@pytest.fixture(scope="module")
def upstream() -> Path:
    """Return the folder that holds upstream's tests; skip where the package index cannot be reached."""
    pinned = re.search(r"^django-celery-beat==(\S+) .*(\n +--hash=\S+.*)+", _requirements(), re.MULTILINE)
    assert pinned
    folder = CACHE / f"django-celery-beat-{pinned[1]}"
    if not folder.exists():
        _unpack(_fetch(pinned[0].rstrip(" \\")), folder)
    return folder


def _requirements() -> str:
    return (ROOT / "requirements.txt").read_text()


def _fetch(requirement: str) -> Path:
    CACHE.mkdir(parents=True, exist_ok=True)
    wanted = CACHE / "requirements.txt"
    wanted.write_text(f"{requirement}\n")
    options = ["--quiet", "--no-deps", "--no-binary", "django-celery-beat", "--require-hashes"]
    # Where there is no way to the index, that is soon known.
    options += ["--retries", "1", "--timeout", "10"]
    told = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, "--requirement", wanted, "--dest", CACHE],
        capture_output=True,
        text=True,
        check=False,
    )
    if told.returncode:
        pytest.skip(f"pip cannot fetch django-celery-beat's source: {told.stderr.strip()[-300:]}")
    return next(CACHE.glob("*.tar.gz"))


def _unpack(archive: Path, folder: Path) -> None:
    unpacked = folder.with_suffix(".part")
    with tarfile.open(archive) as source:
        # Not its package: the installed one is tested.
        wanted = [each for each in source if re.match(r"[^/]+/(t/|setup\.cfg$)", each.name)]
        source.extractall(unpacked, wanted, filter="data")
    (inner,) = unpacked.iterdir()
    tests = inner / "t" / "unit" / "test_schedulers.py"
    tests.write_text(tests.read_text().replace(_MARKED_FIXTURE, "    @pytest.fixture"))
    inner.rename(folder)
    unpacked.rmdir()
    archive.unlink()


def assert_upstream_holds(folder: Path, results: Path, *, deselect: Sequence[str] = ()) -> None:
    """Run upstream's tests: all hold but those of CANNOT_HOLD."""
    count, failed, told = _run(folder, results, f"not ({' or '.join(deselect)})" if deselect else "")
    assert count > 50, told
    if unexpected := failed - CANNOT_HOLD.keys():
        # Some leave a busy machine two seconds.
        _count, failed_again, told = _run(folder, results, " or ".join(unexpected))
        failed -= unexpected - failed_again
    assert failed == CANNOT_HOLD.keys() - set(deselect), told


def _run(folder: Path, results: Path, select: str) -> tuple[int, set[str], str]:
    """Return how many tests ran, which failed, and what pytest said."""
    plugins = ["no:cacheprovider", "celery.contrib.pytest", "tests.prices.upstream_scheduler"]
    options = [word for plugin in plugins for word in ("-p", plugin)]
    # Beside the database of this run's own tests.
    database = urlunsplit(urlsplit(os.environ["DATABASE_URL"])._replace(path="/upstream"))
    options += ["--ds", "marketdata.settings", "--junitxml", str(results), "t/unit/test_schedulers.py"]
    told = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options, "-k", select],
        cwd=folder,
        env=os.environ | {"DATABASE_URL": database, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert results.exists(), told.stdout + told.stderr
    cases = list(ElementTree.parse(results).iter("testcase"))
    return len(cases), {case.attrib["name"] for case in cases if _has_failed(case)}, told.stdout


def _not_now() -> list[str]:
    now = datetime.now(UTC)
    return NOT_AT_FOUR if (now + timedelta(minutes=1)).hour == 4 and now.minute in (0, 59) else []


def _has_failed(case: ElementTree.Element) -> bool:
    return any(child.tag in {"failure", "error"} for child in case)


def test_upstream_tests_hold(upstream: Path, tmp_path: Path) -> None:
    assert_upstream_holds(upstream, tmp_path / "results.xml", deselect=[*SLOW, *_not_now()])


@pytest.mark.soak
def test_upstream_tests_that_take_minutes_hold(upstream: Path, tmp_path: Path) -> None:
    assert_upstream_holds(upstream, tmp_path / "results.xml", deselect=_not_now())
