"""The price-events message: how a price point travels through Kafka, and how it is read back.

Key: the symbol. Value: JSON with event_id, symbol, price, timestamp, source, raw_response_id.
Headers: v (version, 1), precision, currency, received_at, poll_id.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, TypeAlias
from uuid import UUID

import msgspec

from prices.models import Precision, PricePoint
from prices.symbols import is_symbol
from providers.base import ProviderError, to_price

VERSION = b"1"
MAX_CURRENCY_LENGTH = 32
UNKNOWN_PRECISION = Precision.UNKNOWN.encode()
# Ids are made by PostgreSQL's clock: one that is further ahead of the broker's clock is not ours.
MAX_AHEAD = timedelta(seconds=60)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Of the six names, and of the five values that are texts.
FIELD_QUOTES = 2 * (6 + 5)

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
    """What a message says of one price point.

    `observed_at` is None where the provider gave no time, `currency` where it told none.
    """

    event_id: UUID
    symbol: str
    price: Decimal
    provider: str
    observed_at: datetime | None
    currency: str | None = None


class EventFields(msgspec.Struct, gc=False):
    """The JSON of a message's value: what is written, its ids, number and time not read yet."""

    event_id: str
    symbol: str
    price: msgspec.Raw
    timestamp: str
    source: str
    raw_response_id: str


# Raises msgspec.DecodeError where the value is no JSON or lacks a field. Of a name twice the last one counts:
# `has_repeated_names` tells.
fields_decoder = msgspec.json.Decoder(EventFields)
_encoder = msgspec.json.Encoder()
_Time = Annotated[datetime, msgspec.Meta(tz=True)]


def json_number(value: Decimal) -> msgspec.Raw:
    """Return the decimal as a JSON number with its own digits, never an exponent."""
    return msgspec.Raw(format(value, "f").encode())


def encode_event(point: PricePoint, *, poll: UUID | None) -> Message:
    """Return the message of a stored point. `poll` is the poll run that fetched it, if one did."""
    value = EventFields(
        event_id=str(point.id),
        symbol=point.symbol,
        price=json_number(point.price),
        timestamp=_text_of_time(point.observed_at or point.received_at),
        source=point.provider,
        raw_response_id=str(point.raw),
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
    wrong fields, a name twice, prices that are no sound number, ids that are no UUIDv7 or lie over
    60 s ahead of `broker_time`, a key that is not the symbol, a currency that cannot be one. What is not
    used is not looked at: fields of other names, what stands in `raw_response_id`, and `timestamp` where the
    provider gave no time.
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
    has_time = by_name.get("precision") != UNKNOWN_PRECISION
    return PriceEvent(
        event_id=_event_id(fields.event_id, broker_time),
        symbol=fields.symbol,
        price=_price(bytes(fields.price)),
        provider=read_source(fields.source),
        observed_at=read_time(fields.timestamp) if has_time else None,
        currency=read_currency(by_name.get("currency")),
    )


def has_repeated_names(value: bytes) -> bool:
    """Return whether an object in this JSON, of which EventFields can be read, has a name twice."""
    # The names and texts of the fields have 22 quotes: with no more there is nothing else.
    if value.count(b'"') == FIELD_QUOTES:
        return False
    found = False

    def look(pairs: list[tuple[str, Any]]) -> None:
        nonlocal found
        found = found or len(dict(pairs)) < len(pairs)

    # Numbers stay texts: Python refuses long ones.
    json.loads(value, object_pairs_hook=look, parse_int=str, parse_float=str)
    return found


def read_source(text: str) -> str:
    """Return the name of a provider; raise EventError where it is none."""
    if not 1 <= len(text) <= 64 or "\0" in text:
        raise EventError("source is empty, has over 64 characters, or holds a NUL")
    return text


def read_currency(header: str | bytes | None) -> str | None:
    """Return the currency that a header names, None where it names none; raise EventError for odd texts."""
    if not header:
        return None
    try:
        text = header if isinstance(header, str) else header.decode()
    except UnicodeDecodeError as error:
        raise EventError("the header currency is no UTF-8") from error
    if len(text) > MAX_CURRENCY_LENGTH or "\0" in text:
        raise EventError(f"the header currency has over {MAX_CURRENCY_LENGTH} characters, or holds a NUL")
    return text


def read_time(text: str) -> datetime:
    """Return a time of RFC 3339 in UTC; raise EventError where it is none or has no offset."""
    try:
        return msgspec.convert(text, _Time).astimezone(UTC)
    except msgspec.ValidationError as error:
        raise EventError("timestamp is no time of RFC 3339 with an offset") from error
    except OverflowError as error:
        raise EventError("timestamp lies outside the years 1 to 9999 in UTC") from error


def _text_of_time(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def _decode_value(value: bytes | None) -> EventFields:
    if value is None:
        raise EventError("there is no value")
    try:
        fields = fields_decoder.decode(value)
        is_ambiguous = has_repeated_names(value)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise EventError(f"the value cannot be read: {error!s:.200}") from error
    if is_ambiguous:
        raise EventError("the value has a name twice")
    return fields


def _event_id(text: str, broker_time: datetime) -> UUID:
    try:
        event_id = msgspec.convert(text, UUID)
    except msgspec.ValidationError as error:
        raise EventError("event_id is no UUID") from error
    if event_id.version != 7:
        raise EventError("event_id is no UUIDv7")
    # Compared as integers: 48 bits of milliseconds reach beyond the years that datetime knows.
    limit_ms = (broker_time + MAX_AHEAD - _EPOCH) // timedelta(milliseconds=1)
    if event_id.int >> 80 > limit_ms:
        raise EventError("event_id lies over 60 s ahead of the message's time")
    return event_id


def _price(number: bytes) -> Decimal:
    if _NUMBER.fullmatch(number) is None:
        raise EventError("price is no positive number")
    try:
        return to_price(number.decode())
    except ProviderError as error:
        raise EventError(f"price: {error.message}") from error
