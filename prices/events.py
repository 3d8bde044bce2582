"""The price-events message: how a price point travels through Kafka, and how it is read back.

Key: the symbol. Value: JSON with event_id, symbol, price, timestamp, source, raw_response_id.
Headers: v (version, 1), precision, currency, received_at, poll_id.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, TypeAlias
from uuid import UUID

import msgspec

from prices.models import Precision, PricePoint
from prices.symbols import is_symbol
from providers.base import ProviderError, to_price

VERSION = b"1"
# Ids are made by PostgreSQL's clock: one that is further ahead of the broker's clock is not ours.
MAX_AHEAD = timedelta(seconds=60)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Headers: TypeAlias = Sequence[tuple[str, str | bytes | None]]
_NUMBER = re.compile(rb"\d{1,15}(\.\d{1,30})?([eE][+-]?\d{1,2})?", re.ASCII)


class EventError(ValueError):
    """A message that is no price event; its text is the reason that the dead letter keeps."""


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent to the topic."""

    key: bytes
    value: bytes
    headers: list[tuple[str, str | bytes | None]]


@dataclass(frozen=True, slots=True)
class PriceEvent:
    """What a message says of one price point. `observed_at` is None where the provider gave no time."""

    event_id: UUID
    symbol: str
    price: Decimal
    provider: str
    observed_at: datetime | None


class _Value(msgspec.Struct):
    event_id: UUID
    symbol: str
    price: msgspec.Raw
    timestamp: Annotated[datetime, msgspec.Meta(tz=True)]
    source: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    raw_response_id: UUID


_decoder = msgspec.json.Decoder(_Value)
_encoder = msgspec.json.Encoder()


def json_number(value: Decimal) -> msgspec.Raw:
    """Give the decimal as a JSON number with its own digits, never an exponent."""
    return msgspec.Raw(format(value, "f").encode())


def encode_event(point: PricePoint, *, poll: UUID | None) -> Message:
    """Give the message of a stored point. `poll` is the poll run that fetched it, if one did."""
    value = _Value(
        event_id=point.id,
        symbol=point.symbol,
        price=json_number(point.price),
        timestamp=(point.observed_at or point.received_at).astimezone(UTC),
        source=point.provider,
        raw_response_id=point.raw,
    )
    headers: dict[str, str | bytes | None] = {
        "v": VERSION,
        "precision": point.precision.encode(),
        "currency": (point.currency or "").encode(),
        "received_at": point.received_at.astimezone(UTC).isoformat().encode(),
        "poll_id": str(poll or "").encode(),
    }
    return Message(key=point.symbol.encode(), value=_encoder.encode(value), headers=list(headers.items()))


def decode_event(
    key: bytes | None, value: bytes | None, *, headers: Headers, broker_time: datetime
) -> PriceEvent:
    """Read a message of the topic.

    Raises EventError for anything that is not exactly a price event: other versions, missing or
    wrong fields, prices that are no sound number, ids that are no UUIDv7 or lie over 60 s ahead
    of `broker_time`, a key that is not the symbol.
    """
    # Of several headers with one name the first counts.
    by_name = dict(reversed(headers))
    if by_name.get("v", VERSION) != VERSION:
        raise EventError(f"version {by_name['v']!r:.20} is not known, only {VERSION.decode()}")
    fields = _decode_value(value)
    if not is_symbol(fields.symbol):
        raise EventError("symbol is outside the allowed alphabet or length")
    if key != fields.symbol.encode():
        raise EventError("the key is not the symbol")
    _check_id(fields.event_id, broker_time)
    return PriceEvent(
        event_id=fields.event_id,
        symbol=fields.symbol,
        price=_price(bytes(fields.price)),
        provider=fields.source,
        observed_at=None if by_name.get("precision") == Precision.UNKNOWN.encode() else fields.timestamp,
    )


def _decode_value(value: bytes | None) -> _Value:
    if value is None:
        raise EventError("there is no value")
    try:
        fields = _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EventError(f"the value cannot be read: {error!s:.200}") from error
    if "\0" in fields.source:
        raise EventError("source holds a NUL")
    try:
        fields.timestamp = fields.timestamp.astimezone(UTC)
    except OverflowError as error:
        raise EventError("timestamp lies outside the years 1 to 9999 in UTC") from error
    return fields


def _check_id(event_id: UUID, broker_time: datetime) -> None:
    if event_id.version != 7:
        raise EventError("event_id is no UUIDv7")
    # Compared as integers: 48 bits of milliseconds reach beyond the years that datetime knows.
    limit_ms = (broker_time + MAX_AHEAD - _EPOCH) // timedelta(milliseconds=1)
    if event_id.int >> 80 > limit_ms:
        raise EventError("event_id lies over 60 s ahead of the message's time")


def _price(number: bytes) -> Decimal:
    if _NUMBER.fullmatch(number) is None:
        raise EventError("price is no positive number")
    try:
        return to_price(number.decode())
    except ProviderError as error:
        raise EventError(f"price: {error.message}") from error
