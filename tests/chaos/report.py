"""What a run did and what it found, as a table and as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import LiteralString, Self

from tests.chaos.slots import count_slots
from tests.chaos.world import World

NAMED = 5
TABLES: tuple[LiteralString, ...] = (
    "poll_runs",
    "raw_market_data",
    "price_points",
    "symbol_averages",
    "dead_letters",
)


@dataclass(frozen=True)
class Report:
    """`found` maps each check to what it found; everything in it is a fault of the service."""

    seed: int
    seconds: float
    took: dict[str, int]
    injected: dict[str, int]
    sent: dict[str, int]
    streams: dict[str, int]
    slots: dict[str, int]
    rows: dict[str, int]
    revived: dict[str, int]
    stubborn: dict[str, int]
    found: dict[str, list[str]]

    @classmethod
    def of(cls, world: World, found: Mapping[str, Sequence[str]]) -> Self:
        """Return the report of a run that is over."""
        return cls(
            seed=world.setting.seed,
            seconds=world.setting.seconds,
            took=world.took,
            injected=dict(sorted(world.injected.items())),
            sent=dict(sorted(world.traffic.sent.items())),
            streams={
                "connections, one after the other": world.stream_client.connections,
                "rows whose last version it saw": len(world.stream_client.versions),
            },
            slots=count_slots(world),
            rows={table: _rows(world, table) for table in TABLES},
            revived=dict(world.fleet.revived),
            stubborn=dict(+world.fleet.stubborn),
            found={name: list(findings) for name, findings in found.items()},
        )

    @property
    def counts(self) -> dict[str, int]:
        """Return how much each check found."""
        return {name: len(findings) for name, findings in self.found.items()}

    @property
    def is_sound(self) -> bool:
        """Return whether no check found anything."""
        return not any(self.found.values())

    def as_text(self) -> str:
        """Return the table, with the first findings of each check."""
        parts = [
            f"seed {self.seed}, {self.seconds:g} s",
            *_section("seconds", self.took),
            *_section("injected", self.injected),
            *_section("sent by the harness", self.sent),
            *_section("client of the stream", self.streams),
            *_section("slots", self.slots),
            *_section("rows", self.rows),
            *_section("ended by itself, and started again", self.revived),
            *_section("killed 15 s after SIGTERM", self.stubborn),
            *_section("wrong (each must be 0)", self.counts),
        ]
        for name, findings in self.found.items():
            parts += [f"  {name}: {finding}" for finding in findings[:NAMED]]
        return "\n".join(parts)

    def write_json(self, path: Path) -> None:
        """Write the same figures, with all findings."""
        path.write_text(json.dumps(asdict(self) | {"counts": self.counts}, indent=2) + "\n")


def _section(title: str, figures: Mapping[str, int]) -> list[str]:
    if not figures:
        return []
    return ["", title, *(f"  {name:<52}{number:>9,}" for name, number in figures.items())]


def _rows(world: World, table: LiteralString) -> int:
    return int(world.database.value(f"SELECT count(*) FROM {table}"))
