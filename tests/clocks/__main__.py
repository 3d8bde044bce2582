"""Run tests on days that software forgets, by the clock of everything: `python -m tests.clocks [DAY ...]`.

Words that name no day go to pytest. The tests are those that start no processes; property tests, which choose
their times themselves, are left out, and long ones that look at no day. The exit code is 0 where all passed
on all days, and where the clock cannot be set here, with a word about it.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from dev.guardian import ROOT
from tests.clocks.wall_clock import NoCompilerError, WallClock

# All are later than the answers that tests replay: a price of a time to come is refused.
# When the first test begins, some seconds later, the change is at hand where there is one.
DAYS = {
    name: datetime.fromisoformat(moment)
    for name, moment in {
        "saturday": "2026-12-05T15:00:00Z",
        "sunday": "2026-12-06T15:00:00Z",
        "thanksgiving": "2026-11-26T16:00:00Z",
        # New York closes at 18:00 UTC, three hours early.
        "half-day": "2026-11-27T17:59:00Z",
        "us-winter-time": "2027-11-07T05:59:00Z",
        "us-summer-time": "2027-03-14T06:59:00Z",
        "eu-winter-time": "2027-10-31T00:59:00Z",
        "eu-summer-time": "2027-03-28T00:59:00Z",
        "new-year": "2026-12-31T23:59:30Z",
        "leap-day": "2028-02-29T12:00:00Z",
        # A Monday on which the calendars of Mumbai and Shanghai have ended.
        "after-calendars": "2027-06-07T14:00:00Z",
    }.items()
}
# Of the consumer's tests those that look at times: the others wait for Kafka, for minutes in all.
OF_THE_CONSUMER = (
    *("reading/test_decoding", "test_handler"),
    *("repair/test_dead_letters", "repair/test_dead_letters_command", "repair/test_verify"),
)
TESTS = (
    *(f"tests/consumers/{name}.py" for name in OF_THE_CONSUMER),
    *("tests/marketdata", "tests/prices", "tests/providers"),
)
RESULT = re.compile(r"\d+ (passed|failed|errors?|deselected|skipped)\b.* in \d")
START_PROCESSES = (
    *("tests/marketdata/test_command_line.py", "tests/prices/management/test_simulate_provider.py"),
    *("tests/prices/publishing/test_kafka_security.py", "tests/prices/publishing/test_topic_acls.py"),
    *("tests/prices/scheduling/test_upstream_scheduler.py", "tests/providers/test_warm_up.py"),
)
# What no day changes, and takes long.
LOOK_AT_NO_DAY = (
    *("tests/marketdata/test_logs.py", "tests/marketdata/test_middleware.py"),
    *("tests/marketdata/test_settings.py", "tests/prices/database/test_migrations.py"),
    *("tests/prices/fetching/test_hostile_answers.py", "tests/prices/latest/test_crowd.py"),
    *("tests/prices/publishing/test_topic_settings.py", "tests/providers/http"),
    *("tests/providers/simulator/test_adapters.py", "tests/providers/simulator/test_yahoo.py"),
)
OPTIONS = (
    *("-q", "--no-header", "--tb=short", "--numprocesses=7", "--dist=worksteal"),
    *("-m", "not soak and not hypothesis"),
)


def main(words: Sequence[str]) -> int:
    """Run the tests on the days that are named, or on all; return the exit code."""
    # The tests end with this process, and their parts with them.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    days = [word for word in words if word in DAYS] or list(DAYS)
    rest = [word for word in words if word not in DAYS]
    try:
        return max(_run_on(day, rest) for day in days)
    except NoCompilerError as error:
        _say(f"Skipped: {error}.")
        return 0


def _run_on(day: str, words: Sequence[str]) -> int:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="marketdata-clock-") as folder:
        # PostgreSQL runs as another user than root, and reads it too.
        Path(folder).chmod(0o755)
        clock = WallClock(Path(folder))
        clock.set_to(DAYS[day])
        tests = [] if any(word.startswith("tests") for word in words) else _tests()
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", *OPTIONS, *tests, *words],
            cwd=ROOT,
            env=os.environ | clock.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    if ended.returncode:
        _say(ended.stdout)
    # librdkafka may write after pytest's last line.
    result = next(filter(RESULT.search, reversed(ended.stdout.splitlines())), "no result")
    _say(f"{day} ({DAYS[day]:%a %d %b %Y %H:%M:%S} UTC), {time.monotonic() - began:.0f} s: {result}")
    return ended.returncode


def _tests() -> list[str]:
    return [*TESTS, *(f"--ignore={path}" for path in (*START_PROCESSES, *LOOK_AT_NO_DAY))]


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
