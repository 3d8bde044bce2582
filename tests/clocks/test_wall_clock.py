"""The wall clock that tests set moves what reads the time of day or waits for it, and nothing else."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.clocks.waits import WAITS
from tests.clocks.wall_clock import NoCompilerError, WallClock

DAY = timedelta(days=1)
# How far from the right time a reading on a slow machine may be.
NEAR = timedelta(minutes=2)
SCRIPT = Path(__file__).with_name("waits.py")
SPAN_S = 0.3


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> WallClock:
    try:
        return WallClock(tmp_path_factory.mktemp("clock"))
    except NoCompilerError as error:
        pytest.skip(str(error))


def run(clock: WallClock, *command: str | Path) -> str:
    environment = os.environ | clock.environment
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


@contextmanager
def waiting(clock: WallClock, function: str, seconds: float) -> Iterator[subprocess.Popen[str]]:
    command: list[str | Path] = [sys.executable, SCRIPT, function, str(seconds)]
    environment = os.environ | clock.environment
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "waiting\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("offset", [timedelta(), 900 * DAY, -3 * DAY, timedelta(seconds=1.5)])
def test_time_of_day_is_shifted(clock: WallClock, offset: timedelta) -> None:
    clock.set_ahead(offset)
    readings = "import time, datetime; print(time.time(), datetime.datetime.now().timestamp())"
    shell = run(clock, "date", "+%s")
    python = run(clock, sys.executable, "-c", readings)
    for seconds in [shell, *python.split()]:
        assert abs(datetime.fromtimestamp(float(seconds), UTC) - datetime.now(UTC) - offset) < NEAR


def test_clock_is_set_to_a_moment(clock: WallClock) -> None:
    moment = datetime(2028, 2, 29, 12, tzinfo=UTC)
    clock.set_to(moment)
    assert abs(datetime.now(UTC) + clock.ahead - moment) < NEAR
    assert run(clock, "date", "-u", "+%F") == "2028-02-29\n"


def test_monotonic_clock_stays(clock: WallClock) -> None:
    clock.set_ahead(DAY)
    before = time.monotonic()
    reading = float(run(clock, sys.executable, "-c", "import time; print(time.monotonic())"))
    assert before <= reading <= time.monotonic()


@pytest.mark.parametrize("offset", [DAY, -DAY])
@pytest.mark.parametrize("function", WAITS)
def test_wait_lasts_as_long_as_it_says(clock: WallClock, function: str, offset: timedelta) -> None:
    clock.set_ahead(offset)
    _, lasted_s = run(clock, sys.executable, SCRIPT, function, str(SPAN_S)).splitlines()[-1].split()
    assert float(lasted_s) >= SPAN_S


@pytest.mark.parametrize("function", sorted(set(WAITS) - {"timerfd_settime"}))
def test_wait_ends_when_the_clock_is_set(clock: WallClock, function: str) -> None:
    clock.set_ahead(timedelta())
    with waiting(clock, function, DAY.total_seconds()) as process:
        clock.set_ahead(DAY)
        output, _ = process.communicate(timeout=60)
    assert output


def test_touched_file_has_the_shifted_time(clock: WallClock, tmp_path: Path) -> None:
    clock.set_ahead(DAY)
    file = tmp_path / "file"
    file.touch()
    run(clock, sys.executable, "-c", f"from pathlib import Path; Path({str(file)!r}).touch()")
    assert abs(file.stat().st_mtime - time.time() - DAY.total_seconds()) < NEAR.total_seconds()
