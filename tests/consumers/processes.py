"""`manage.py consume_prices` as a process, on the database, topic and group of the test."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from django.conf import settings
from django.db import connection

# It takes at most 10 s, and much less where nothing else runs.
STOP_TIMEOUT_S = 60


class ConsumerProcess:
    """One process; its output goes to a file in the folder."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._log = folder / "consumer.log"
        address = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")
        environment = os.environ | {
            "DATABASE_URL": urlunsplit(address),
            "KAFKA_BOOTSTRAP_SERVERS": settings.KAFKA_BOOTSTRAP_SERVERS,
            "KAFKA_TOPIC": settings.KAFKA_TOPIC,
            "KAFKA_CONSUMER_GROUP": settings.KAFKA_CONSUMER_GROUP,
            "HEARTBEAT_DIR": str(folder),
        }
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "manage.py", "consume_prices", *options],
                cwd=settings.BASE_DIR,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    @property
    def output(self) -> str:
        """What it has written so far."""
        return self._log.read_text()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Return its exit code once it has ended by itself."""
        return self._process.wait(STOP_TIMEOUT_S)

    def stop(self) -> int:
        """Ask it to end; return its exit code."""
        self._process.terminate()
        return self._process.wait(STOP_TIMEOUT_S)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._process.kill()
        self._process.wait()
