"""What a process imports when it starts, each in a process of its own."""

import subprocess
import sys

import pytest

IMPORTED = """
import sys
{code}
print(*sorted({{"exchange_calendars", "yfinance"}} & set(sys.modules)))
"""
WORKER = """
from celery import signals
from marketdata.celery import app
worker = app.Worker(quiet=True, queues={queues!r})
signals.celeryd_after_setup.send(sender="worker", instance=worker, conf=app.conf)
"""
WEB = """
import threading
import marketdata.wsgi
for thread in threading.enumerate():
    if thread.name == "warm-up":
        thread.join()
"""


def imported_by(code: str) -> list[str]:
    """Return which of the large modules the code imports."""
    command = [sys.executable, "-c", IMPORTED.format(code=code)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


@pytest.mark.parametrize(
    ("queues", "modules"),
    [
        ("poll.yfinance", ["exchange_calendars", "yfinance"]),
        ("poll.finnhub", ["exchange_calendars"]),
        ("poll.simulated", []),
        ("maintenance", []),
    ],
)
def test_worker_imports_what_its_queue_takes(queues: str, modules: list[str]) -> None:
    assert imported_by(WORKER.format(queues=queues)) == modules


def test_web_imports_all_in_the_background() -> None:
    assert imported_by(WEB) == ["exchange_calendars", "yfinance"]
