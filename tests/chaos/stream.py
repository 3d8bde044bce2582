"""A client of the stream that is cut off at random, and what it has seen beside the table in the end."""

import json
import threading
import time
from random import Random
from typing import TYPE_CHECKING
from uuid import UUID

import httpx
from django.db import connection
from httpx_sse import connect_sse

from prices.models import AverageBatch, SymbolAverage
from prices.stream.positions import Cursor
from prices.stream.reading import newest_position, read_history

if TYPE_CHECKING:
    from tests.chaos.world import World

# Shortest and longest time of one connection.
CUT_AFTER_S = (0.1, 2.0)
PAUSE_S = 0.05


class StreamClient:
    """Reads all symbols from a position on, over as many connections as it takes."""

    def __init__(self, address: str, *, seed: int) -> None:
        self.versions: dict[UUID, int] = {}
        self.wrong: list[str] = []
        self.connections = 0
        self._address = address
        self._rng = Random(f"stream {seed}")
        self._last_id = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stream client")

    def start(self) -> None:
        """Begin at what is stored now."""
        AverageBatch.objects.create(number=0, rows=0, added=[], changed=[])
        self._last_id = str(Cursor(read_history(), newest_position()))
        self._thread.start()

    def finish(self) -> None:
        """End."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._read(until=time.monotonic() + self._rng.uniform(*CUT_AFTER_S))
            except httpx.HTTPError:
                # The server is struck, or PostgreSQL is away.
                self._over.wait(PAUSE_S)

    def _read(self, *, until: float) -> None:
        headers = {"Last-Event-ID": self._last_id}
        # Where nothing comes it is cut off, too.
        timeout = httpx.Timeout(5, read=max(until - time.monotonic(), PAUSE_S))
        with (
            httpx.Client(timeout=timeout) as client,
            connect_sse(client, "GET", f"{self._address}?symbols=*", headers=headers) as stream,
        ):
            stream.response.raise_for_status()
            self.connections += 1
            for event in stream.iter_sse():
                if event.event in ("price", "correction"):
                    self._note(json.loads(event.data))
                elif event.event in ("reset", "snapshot"):
                    self.wrong.append(f"{event.event} after {self._last_id}: {event.data}")
                self._last_id = event.id or self._last_id
                if time.monotonic() > until or self._over.is_set():
                    return

    def _note(self, row: dict[str, object]) -> None:
        event_id, version = UUID(str(row["event_id"])), int(str(row["version"]))
        seen = self.versions.get(event_id, 0)
        if version <= seen:
            self.wrong.append(f"{event_id}: version {version} after {seen}")
        self.versions[event_id] = version


def stream_unlike_table(world: "World") -> list[str]:
    """Return what the client saw twice, or was not told, and rows whose last version it has not seen."""
    client = world.stream_client
    if not client.connections:
        return ["the client was never let in"] if world.fleet.of_kind("stream") else []
    stored = _stored()
    return client.wrong + [
        f"{event_id}: stored version {stored.get(event_id)}, seen {client.versions.get(event_id)}"
        for event_id, _version in dict(stored.items() ^ client.versions.items()).items()
    ]


def has_seen_all(world: "World") -> bool:
    """Return whether the client has the last version of each row."""
    return not world.fleet.of_kind("stream") or _stored() == world.stream_client.versions


def _stored() -> dict[UUID, int]:
    try:
        return dict(SymbolAverage.objects.values_list("event_id", "tx"))
    finally:
        connection.close()
