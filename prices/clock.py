"""The one clock of the service: PostgreSQL's.

Slots, claims, gaps, leases and ids go by it, whatever the clocks of the hosts say that beat, workers and web
run on. A process whose own clock differs says so in the log and in `clock_differences`, since providers'
answers are dated by that one.
"""

import socket
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.db import DatabaseError, InterfaceError, connection, transaction
from django.utils import timezone

from prices.models import ClockDifference

log = structlog.get_logger(__name__)

# NTP keeps clocks far closer than this.
DIFFERS_BEYOND = timedelta(seconds=2)
NOTED_EACH_S = 10.0
READ_AGAIN_S = 1.0
# A process that ended with a wrong clock is forgotten.
FORGOTTEN_AFTER = timedelta(seconds=60)


def database_now() -> datetime:
    """Return the time by PostgreSQL's clock, read just now.

    It is never ahead of that clock: what is due by it is due for whoever asks PostgreSQL afterwards. Raises
    what the database raises.
    """
    asked_at = timezone.now()
    now = _read()
    _own.note(now, asked_at=asked_at, answered_at=timezone.now())
    return now


def name_process(name: str) -> None:
    """Give this process the name under which its clock is noted where it differs: name and host."""
    _own.name = f"{name}@{socket.gethostname()}"


@dataclass(frozen=True, slots=True)
class Reading:
    """What PostgreSQL's clock said at a moment of this process's monotonic clock."""

    moment: datetime
    read_at: float

    @property
    def now(self) -> datetime:
        """The time by PostgreSQL's clock, if that has not been set since; never ahead of it."""
        return self.moment + timedelta(seconds=time.monotonic() - self.read_at)


def read_clock() -> Reading:
    """Read PostgreSQL's clock for somebody who looks at it often. Raises what the database raises."""
    moment = database_now()
    return Reading(moment, time.monotonic())


def recent_now() -> datetime:
    """Return the time by PostgreSQL's clock for an answer that asks PostgreSQL for nothing else.

    It was read in this process at most READ_AGAIN_S ago, and has gone on since by the monotonic clock. Raises
    what the database raises.
    """
    return _recent.now()


def differing_clocks() -> list[ClockDifference]:
    """Return the processes whose clocks differed from PostgreSQL's within the last minute."""
    return list(ClockDifference.objects.filter(noted_at__gte=_read() - FORGOTTEN_AFTER).order_by("process"))


def _read() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (now,) = cursor.fetchone()
    return now  # type: ignore[no-any-return]


class _Recent:
    """A reading that all threads of this process share."""

    def __init__(self) -> None:
        self._reading: Reading | None = None
        self._lock = threading.Lock()

    def now(self) -> datetime:
        reading = self._reading
        if reading is None or time.monotonic() - reading.read_at > READ_AGAIN_S:
            reading = self._read_again()
        return reading.now

    def _read_again(self) -> Reading:
        with self._lock:
            # Another thread may have read it meanwhile.
            reading = self._reading
            if reading is None or time.monotonic() - reading.read_at > READ_AGAIN_S:
                reading = self._reading = read_clock()
            return reading


class _OwnClock:
    """This process's own clock, as it is compared with PostgreSQL's at each reading."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._noted_at = float("-inf")
        self._differs = False

    def note(self, now: datetime, *, asked_at: datetime, answered_at: datetime) -> None:
        ahead = asked_at - now if asked_at > now else min(answered_at - now, timedelta(0))
        differs = abs(ahead) > DIFFERS_BEYOND
        if differs != self._differs:
            self._differs = differs
            self._noted_at = float("-inf")
            self._log(ahead)
        if differs and self.name and time.monotonic() - self._noted_at > NOTED_EACH_S:
            self._noted_at = time.monotonic()
            _write(self.name, now, ahead)

    def _log(self, ahead: timedelta) -> None:
        if self._differs:
            log.warning("clock.differs", ahead_of_postgresql_s=round(ahead.total_seconds(), 1))
        else:
            log.info("clock.agrees")


def _write(process: str, now: datetime, ahead: timedelta) -> None:
    row = ClockDifference(process=process, ahead_s=ahead.total_seconds(), noted_at=now)
    try:
        with transaction.atomic():
            ClockDifference.objects.bulk_create(
                [row],
                update_conflicts=True,
                unique_fields=["process"],
                update_fields=["ahead_s", "noted_at"],
            )
    except (DatabaseError, InterfaceError) as error:
        # It is in the log; whoever asked for the time shall have it.
        log.warning("clock.not_noted", reason=str(error).partition("\n")[0])


_own = _OwnClock()
_recent = _Recent()
