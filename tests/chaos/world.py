"""What a chaos run is made of: the parts, the processes, the traffic, and what was done to them."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from random import Random
from uuid import UUID

from dev.pytest_services import Services
from tests.chaos.clocks import Clocks
from tests.chaos.database import Database
from tests.chaos.log import Content, Position
from tests.chaos.processes import MEMBERS, Fleet
from tests.chaos.stream import StreamClient
from tests.chaos.traffic import Traffic

OWN_SYMBOLS = [f"SIM-OWN-{number}" for number in range(8)]
# Polled by several jobs, so that their slots share answers; the harness sends events of these as well.
SHARED_SYMBOLS = [f"SIM-SHARED-{number}" for number in range(4)]


@dataclass(frozen=True)
class Setting:
    """What is run, through `seconds` of faults.

    `commands` replaces commands of the Procfile, `jobs` is how many poll jobs there are, `interval` (seconds)
    that of each, with no symbol of others, and `recovery_s` how long the service may take to catch up
    afterwards. Without an interval it is 1 or 2, and the harness sends prices too.
    """

    seed: int
    seconds: float
    folder: Path
    members: Mapping[str, str] = field(default_factory=lambda: MEMBERS)
    commands: Mapping[str, str] = field(default_factory=dict)
    jobs: int = 30
    interval: int | None = None
    recovery_s: float = 90


class World:
    """Everything that faults act on and checks look at."""

    def __init__(self, setting: Setting, services: Services, *, clocks: Clocks | None = None) -> None:
        self.setting = setting
        self.services = services
        self.clocks = clocks
        self.fleet = Fleet(setting.folder, setting.members, commands=setting.commands, clocks=clocks)
        self.database = self.new_database()
        symbols = [*OWN_SYMBOLS, *SHARED_SYMBOLS]
        self._traffic_database = self.new_database()
        self.traffic = Traffic(self._traffic_database, symbols, seed=setting.seed)
        self.stream_client = StreamClient(self.fleet.stream_address, seed=setting.seed)
        # What faults choose beyond their plan.
        self.rng = Random(f"world {setting.seed}")
        # Parts and processes that a fault has in its hands.
        self.busy: set[str] = set()
        self.injected: Counter[str] = Counter()
        self.unreached: list[str] = []
        self.log: dict[Position, Content] = {}
        # By PostgreSQL's clock, all of these. Slots are due from the creation of their job on; faults strike
        # between the two times below, and soon afterwards all jobs have ended.
        self.accounted_from: dict[UUID, datetime] = {}
        self.struck_from: datetime | None = None
        self.stopped_at: datetime | None = None
        self.ended_at: datetime | None = None
        self.took: dict[str, int] = {}

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Note how many seconds a phase of the run took."""
        began = time.monotonic()
        yield
        self.took[phase] = round(time.monotonic() - began)

    def new_database(self) -> Database:
        """Return a connection of its own to whoever runs in another thread."""
        return Database(self.fleet.database_url)

    def close(self) -> None:
        """End the traffic and the processes, however the run went."""
        self.stream_client.finish()
        self.traffic.close()
        self.fleet.close()
        self.database.close()
        self._traffic_database.close()
