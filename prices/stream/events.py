"""What clients are sent: a row of symbol_averages, how good its price is, and where in the stream it is."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from prices.api.renderers import encode_json, time
from prices.models.price_point import known_time
from prices.stream.positions import Cursor, Position
from providers.markets.freshness import age_seconds, freshness_of

# What was written so lately says how old the price is well enough.
_WRITTEN_FOR = timedelta(milliseconds=500)


class StreamEventKind(StrEnum):
    """Whether a row is new, or is another one than it was."""

    PRICE = "price"
    CORRECTION = "correction"


class StoredRow(NamedTuple):
    """A row, and of its point what tells how good the price is; `line` is its JSON object."""

    symbol: str
    provider: str
    observed_at: datetime | None
    precision: str | None
    received_at: datetime | None
    line: str


@dataclass(slots=True)
class StreamEvent:
    """A row as it was written at a position."""

    kind: StreamEventKind
    position: Position
    row: StoredRow
    _frame: bytes = field(default=b"", init=False)
    _written_at: datetime | None = field(default=None, init=False)

    def frame(self, history: str, *, now: datetime) -> bytes:
        """Return what is sent; made once for all who get it at about the same time."""
        if self._written_at is None or not timedelta() <= now - self._written_at < _WRITTEN_FOR:
            data = with_quality(self.row, now=now)
            self._frame = sse_frame(self.kind, data, cursor=Cursor(history, self.position))
            self._written_at = now
        return self._frame


def with_quality(row: StoredRow, *, now: datetime) -> bytes:
    """Return a row's JSON with how good its price is at a moment, as /symbols tells it."""
    precision = row.precision or "unknown"
    found = freshness_of(
        symbol=row.symbol,
        provider=row.provider,
        observed_at=row.observed_at,
        precision=precision,
        now=now,
    )
    known = known_time(row.observed_at, precision=precision, received_at=row.received_at)
    quality = {
        "precision": precision,
        "received_at": time(row.received_at),
        "age_seconds": None if known is None else age_seconds(known, now=now),
        "market_state": str(found.market_state),
        "freshness": str(found.state),
        "freshness_rule": found.rule,
    }
    return b"%s,%s" % (row.line[:-1].encode(), encode_json(quality)[1:])


def sse_frame(name: str, data: bytes | dict[str, Any], *, cursor: Cursor | None = None) -> bytes:
    """Return an event as a server sends it."""
    where = "" if cursor is None else f"id: {cursor}\n"
    text = data if isinstance(data, bytes) else encode_json(data)
    return b"%sevent: %s\ndata: %s\n\n" % (where.encode(), name.encode(), text)
