"""The wall clocks of a chaos run: PostgreSQL's, that of each process of the service, and Kafka's.

A process's own clock goes with PostgreSQL's, as on hosts that NTP keeps together, and may be wrong by itself.
Kafka's is right, and Valkey's and the harness's own are never set: how late it is by PostgreSQL's clock, the
harness asks PostgreSQL.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.clocks.wall_clock import WallClock

RIGHT = timedelta(0)
# So far it is off at most by small steps: less than the consumer allows ids to be ahead of Kafka's clock.
MOST_BY_STEPS = timedelta(seconds=20)
# prices/ledger/set_back.py undoes nothing before.
MOST_BACK = timedelta(seconds=5)
# More than the interval of a job.
BEYOND_LAST_SLOT = timedelta(seconds=4)
_POSTGRES, _KAFKA = "postgres", "kafka"


class _Furthest:
    """The latest time that a clock ever showed."""

    def __init__(self) -> None:
        self._time = datetime.now(UTC)

    def note(self, ahead: timedelta) -> None:
        """Note how far ahead it has been up to now."""
        self._time = max(self._time, datetime.now(UTC) + ahead)

    @property
    def now(self) -> timedelta:
        """How far ahead a clock is that shows this time now."""
        return self._time - datetime.now(UTC)


class Clocks:
    """Sets the clocks of whatever was started with their environments; each is right at first.

    NoCompilerError where the clock cannot be shifted here.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        # PostgreSQL may run as another user, and reads it too.
        folder.chmod(0o755)
        self._folder = folder
        self._clocks = {_POSTGRES: WallClock(folder, name=_POSTGRES)}
        self._wrong_by = {_POSTGRES: RIGHT}
        self._kafka = WallClock(folder, name=_KAFKA)
        self._ahead = RIGHT
        self._furthest, self._furthest_by_steps = _Furthest(), _Furthest()
        self._lock = threading.Lock()

    @property
    def of_postgres(self) -> Mapping[str, str]:
        """Return the variables with which PostgreSQL is started."""
        return self._clocks[_POSTGRES].environment

    @property
    def of_kafka(self) -> Mapping[str, str]:
        """Return the variables with which Kafka is started."""
        return self._kafka.environment

    def of_member(self, name: str) -> Mapping[str, str]:
        """Return the variables with which a process of the service is started."""
        with self._lock:
            if name not in self._clocks:
                self._clocks[name], self._wrong_by[name] = WallClock(self._folder, name=name), RIGHT
                self._set(name)
        return self._clocks[name].environment

    @contextmanager
    def wrong(self, name: str, by: timedelta) -> Iterator[None]:
        """Set the clock of one process ahead, or back by a negative span, and right again in the end."""
        self._set_wrong(name, by)
        try:
            yield
        finally:
            self._set_wrong(name, RIGHT)

    def step(self, by: timedelta) -> None:
        """Set PostgreSQL's clock ahead or back, and those of all processes with it.

        The other way round where it would be off by more than 20 s, or several steps would set it back by
        more than one may: what was polled so far ahead is polled again in its time.
        """
        with self._lock:
            self._furthest_by_steps.note(self._ahead)
            least = max(-MOST_BY_STEPS, self._furthest_by_steps.now - MOST_BACK)
            stepped = self._ahead + by
            self._set_ahead(stepped if least <= stepped <= MOST_BY_STEPS else self._ahead - by)

    def pass_over(self, span: timedelta) -> None:
        """Let this time pass at once, for Kafka too."""
        with self._lock:
            self._kafka.set_ahead(self._kafka.ahead + span)
            self._set_ahead(self._ahead + span)

    @contextmanager
    def ahead(self, by: timedelta) -> Iterator[None]:
        """Set PostgreSQL's clock ahead, and those of all processes with it, for a while.

        It gets beyond where it has ever been, and no slot that was polled there is still the current one:
        what a clock that was ahead polled is polled again in its time, and that is no fault.
        """
        with self._lock:
            before = self._ahead
            self._set_ahead(max(before + by, self._furthest.now + BEYOND_LAST_SLOT))
        try:
            yield
        finally:
            with self._lock:
                self._set_ahead(before)

    def _set_wrong(self, name: str, by: timedelta) -> None:
        with self._lock:
            self._wrong_by[name] = by
            self._set(name)

    def _set_ahead(self, ahead: timedelta) -> None:
        self._furthest.note(self._ahead)
        self._ahead = ahead
        for name in self._clocks:
            self._set(name)

    def _set(self, name: str) -> None:
        self._clocks[name].set_ahead(self._ahead + self._wrong_by[name])
