"""What a killed runner has started ends, in order, and its files go."""

import signal
import subprocess
import sys
from pathlib import Path

from dev.guardian import ROOT, Guardian
from tests.dev.processes import processes_below
from tests.waiting import wait_until

RUNNER = """
import subprocess, sys, time
from pathlib import Path
from dev.guardian import Guardian

folder = Path(sys.argv[1])
guardian = Guardian()
guardian.remove(folder / "settings")
for name, rank in (("server", 1), ("user", 0)):
    process = subprocess.Popen([sys.executable, "child.py", name], cwd=folder, start_new_session=True)
    guardian.watch(process.pid, stop_signal=15, rank=rank)
time.sleep(600)
"""
CHILD = """
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
open(f"{sys.argv[1]}-ready", "w")
signal.sigwait([signal.SIGTERM])
open("ended", "a").write(f"{sys.argv[1]} ")
"""


def test_guardian_runner_killed_ends_lower_ranks_first(tmp_path: Path) -> None:
    (tmp_path / "settings").touch()
    (tmp_path / "child.py").write_text(CHILD)
    runner = subprocess.Popen([sys.executable, "-c", RUNNER, tmp_path], cwd=ROOT)
    wait_until(lambda: len(list(tmp_path.glob("*-ready"))) == 2, what="both children are up")

    runner.send_signal(signal.SIGKILL)
    runner.wait()

    wait_until(lambda: not (tmp_path / "settings").exists(), what="the file is removed")
    assert (tmp_path / "ended").read_text() == "user server "
    assert processes_below(tmp_path) == []


def test_guardian_forgotten_group_lives_on(guardian: Guardian) -> None:
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    guardian.watch(process.pid, stop_signal=signal.SIGTERM)
    guardian.forget(process.pid)

    guardian.close()

    assert process.poll() is None
    process.kill()
    process.wait()


def test_guardian_close_removes_files_and_folders(guardian: Guardian, tmp_path: Path) -> None:
    (tmp_path / "folder" / "below").mkdir(parents=True)
    guardian.remove(tmp_path / "folder")
    guardian.remove(tmp_path / "never made")

    guardian.close()

    assert list(tmp_path.iterdir()) == []
