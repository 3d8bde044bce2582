"""Clients of the stream in a process of their own: `python -m bench.stream_clients PORT CLIENTS SYMBOLS`.

It says "open" once each client has heard where it is. Once its standard input has a line or ends it prints,
as JSON, each event that a client got: the ms that it took from the moment in its id, and its id.
"""

import asyncio
import json
import re
import sys
import time
from functools import partial
from uuid import UUID

# What is sent at the begin opens slowly where all come at once.
OPENED_AT_ONCE = 100
_EVENT = re.compile(rb'event: (?:price|correction)\ndata: .*?"event_id":"([0-9a-f-]{36})"')
_MS_SHIFT = 80


def symbol_name(number: int) -> str:
    """Return the name of a symbol."""
    return f"SIM-S{number:05}"


class _Client(asyncio.Protocol):
    """One stream; notes in `arrivals` when which event came, in seconds of the epoch."""

    def __init__(self, symbol: str, arrivals: list[tuple[float, bytes]]) -> None:
        self._symbol, self._arrivals = symbol, arrivals
        self._rest = b""
        self.is_open: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(
            f"GET /prices/stream?symbols={self._symbol} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        now = time.time()
        *events, self._rest = (self._rest + data).split(b"\n\n")
        for event in events:
            found = _EVENT.search(event)
            if found:
                self._arrivals.append((now, found[1]))
            elif b"id: " in event and not self.is_open.done():
                self.is_open.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.is_open.done():
            self.is_open.set_exception(ConnectionError(f"a stream ended: {error}"))


async def _run(port: int, clients: int, symbols: int) -> None:
    arrivals: list[tuple[float, bytes]] = []
    loop = asyncio.get_running_loop()
    for begin in range(0, clients, OPENED_AT_ONCE):
        numbers = range(begin, min(begin + OPENED_AT_ONCE, clients))
        opened = [
            await loop.create_connection(
                partial(_Client, symbol_name(number % symbols), arrivals), "127.0.0.1", port
            )
            for number in numbers
        ]
        await asyncio.gather(*(client.is_open for _transport, client in opened))
    _say("open")
    await loop.run_in_executor(None, sys.stdin.readline)
    _say(json.dumps([(now * 1000 - _ms_of(event_id), event_id.decode()) for now, event_id in arrivals]))


def _ms_of(event_id: bytes) -> int:
    return UUID(event_id.decode()).int >> _MS_SHIFT


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_run(*map(int, sys.argv[1:4])))
