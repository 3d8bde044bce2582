"""Process groups are ended politely, then surely."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil

from dev.groups import end_groups
from tests.waiting import wait_until

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open('ready', 'w'); time.sleep(600)"
)
POLITE = """
import signal, subprocess, sys, time
child = subprocess.Popen(["sleep", "600"])
signal.signal(signal.SIGTERM, lambda *_: (open("said", "w").close(), sys.exit(0)))
# In a file that is closed by nobody the exit would come up in its __del__, and be ignored.
with open("ready", "w"):
    pass
time.sleep(600)
"""


def start(code: str, folder: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", code], cwd=folder, start_new_session=True)
    wait_until((folder / "ready").exists, what="the process is up")
    return process


def test_end_groups_polite_leader_may_finish_and_its_child_is_killed(tmp_path: Path) -> None:
    process = start(POLITE, tmp_path)
    child = psutil.Process(process.pid).children()[0]

    end_groups({process.pid: signal.SIGTERM}, timeout_s=60, ended=lambda _: process.poll() is not None)

    assert process.returncode == 0
    assert (tmp_path / "said").exists()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_end_groups_stubborn_leader_is_killed_after_the_timeout(tmp_path: Path) -> None:
    process = start(STUBBORN, tmp_path)

    end_groups({process.pid: signal.SIGTERM}, timeout_s=0.3, ended=lambda _: process.poll() is not None)

    assert process.wait() == -signal.SIGKILL


def test_end_groups_of_somebody_else_sees_a_zombie_as_ended(tmp_path: Path) -> None:
    process = start(POLITE, tmp_path)

    # Nobody calls wait(): the process stays in the table, as an orphan does where nothing reaps it.
    end_groups({process.pid: signal.SIGTERM}, timeout_s=600)

    assert process.wait() == 0


def test_end_groups_gone_group_is_no_error() -> None:
    process = subprocess.Popen(["true"], start_new_session=True)
    process.wait()

    end_groups({process.pid: signal.SIGTERM}, timeout_s=600)
