"""Signals ask the runner to stop."""

import signal
import subprocess
import sys

import pytest

from dev.guardian import ROOT
from dev.stopping import StopRequest, StopRequested

LISTEN = """
import signal
from dev.stopping import StopRequest
stop = StopRequest()
stop.listen()
signal.raise_signal(signal.SIGHUP)
print(stop.times)
"""


def test_stop_request_check_raises_once_somebody_asked() -> None:
    stop = StopRequest()
    stop.check()
    stop.ask()
    with pytest.raises(StopRequested):
        stop.check()


@pytest.mark.parametrize(("before", "times"), [(signal.SIG_DFL, "1"), (signal.SIG_IGN, "0")])
def test_stop_request_terminal_closed_asks_unless_nohup(before: signal.Handlers, times: str) -> None:
    code = f"import signal; signal.signal(signal.SIGHUP, signal.Handlers({before.value}))\n{LISTEN}"
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout == f"{times}\n"
