"""A client of the stream, as a program has one."""

import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import httpx
from httpx_sse import EventSource, ServerSentEvent

from tests.waiting import wait_until


class Listener:
    """Collects what a stream sends, in a thread of its own."""

    def __init__(self, address: str, headers: Mapping[str, str]) -> None:
        self.received: list[ServerSentEvent] = []
        self.is_over = False
        self._client = httpx.Client(timeout=httpx.Timeout(30, read=120))
        request = self._client.build_request("GET", address, headers=dict(headers))
        self.response = self._client.send(request, stream=True)
        if self.response.status_code != httpx.codes.OK:
            self.response.read()
            return
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        with suppress(httpx.HTTPError, httpx.StreamError):
            for each in EventSource(self.response).iter_sse():
                self.received.append(each)
        self.is_over = True

    def named(self, *names: str) -> list[dict[str, Any]]:
        """Return the data of all events of these names that have come."""
        return [each.json() for each in list(self.received) if each.event in names and each.data]

    def prices(self) -> list[dict[str, Any]]:
        """Return the prices and corrections that have come."""
        return self.named("price", "correction")

    @property
    def last_id(self) -> str:
        """The id with which the stream goes on."""
        return next((each.id for each in reversed(list(self.received)) if each.id), "")

    def wait_for(self, count: int, *names: str) -> list[dict[str, Any]]:
        """Return the data of the events of these names once there are so many."""
        wait_until(lambda: len(self.named(*names)) >= count, what=f"{count} of {names}: {self.received[-3:]}")
        return self.named(*names)

    def wait_for_id(self) -> str:
        """Return where the stream is, once it says so."""
        wait_until(lambda: self.last_id, what="an id")
        return self.last_id

    def close(self) -> None:
        """Leave, as a client whose process ends."""
        self.response.close()
        self._client.close()
