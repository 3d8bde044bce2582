"""The service's processes in a chaos run: several of a kind, each with a folder and a log of its own."""

import signal
import time
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

from tests.chaos.clocks import Clocks
from tests.product import STOP_TIMEOUT_S, Product

# A fourth consumer is one line more.
MEMBERS = {
    "beat": "beat",
    "beat-2": "beat",
    "poller": "poller-simulated",
    "maintenance": "maintenance",
    "consumer-1": "consumer",
    "consumer-2": "consumer",
    "consumer-3": "consumer",
    "stream": "stream",
}
BEATS_ONLY = {
    "beat": "beat",
    "beat-2": "beat",
    "poller": "poller-simulated",
    "maintenance": "maintenance",
    "consumer-1": "consumer",
}
# Shorter than in earnest, so that a run of seconds sees a claim grow overdue and a sweep.
ENVIRONMENT = {"OUTBOX_SWEEP_AFTER_S": "1", "POLL_DEADLINE_S": "5"}
PAUSE_S = 0.02


class Fleet:
    """Starts and ends the members; `members` gives the Procfile's name of each."""

    def __init__(
        self,
        folder: Path,
        members: Mapping[str, str],
        *,
        commands: Mapping[str, str],
        clocks: Clocks | None = None,
    ) -> None:
        self.members = dict(members)
        self.revived: Counter[str] = Counter()
        self.stubborn: Counter[str] = Counter()  # not ended by SIGTERM
        self._products = {name: self._product(folder / name, commands) for name in members}
        if clocks is not None:
            for name, product in self._products.items():
                product.set_environment(**clocks.of_member(name))

    @property
    def database_url(self) -> str:
        """The database of all."""
        return next(iter(self._products.values())).database_url

    @property
    def stream_address(self) -> str:
        """Where the stream is, if there is one."""
        product = self._products.get("stream") or next(iter(self._products.values()))
        return f"http://{product.stream_address}/prices/stream"

    def of_kind(self, process: str) -> list[str]:
        """Return the members that run this process of the Procfile."""
        return [name for name, kind in self.members.items() if kind == process]

    def start(self, name: str) -> None:
        """Start a member."""
        self._products[name].start(self.members[name])

    def start_all(self) -> None:
        """Start every member."""
        for name in self.members:
            self.start(name)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a member a signal."""
        self._products[name].send_signal(self.members[name], number)

    def kill(self, name: str) -> None:
        """End a member at once, as a crash would."""
        self._products[name].kill(self.members[name])

    def stop(self, *names: str) -> None:
        """Ask members to end, at once, and kill those that have not after 15 s."""
        for name in names:
            self.signal(name, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while any(self._exit_code(name) is None for name in names) and time.monotonic() < deadline:
            time.sleep(PAUSE_S)
        for name in names:
            self.stubborn[name] += self._exit_code(name) is None
            self.kill(name)

    def revive(self, *, without: Collection[str] = ()) -> None:
        """Start again what ended by itself, as a supervisor would; count it in `revived`."""
        for name in self.members:
            if name in without or self._exit_code(name) is None:
                continue
            self.revived[f"{name}, exit code {self._exit_code(name)}"] += 1
            self.kill(name)
            self.start(name)

    def stop_all(self) -> None:
        """Ask every member to end."""
        self.stop(*self.members)

    def close(self) -> None:
        """End whatever runs."""
        for product in self._products.values():
            product.close()

    def _exit_code(self, name: str) -> int | None:
        return self._products[name].exit_code(self.members[name])

    @staticmethod
    def _product(folder: Path, commands: Mapping[str, str]) -> Product:
        folder.mkdir(parents=True)
        product = Product(folder, **ENVIRONMENT)
        for process, command in commands.items():
            product.set_command(process, command)
        return product
