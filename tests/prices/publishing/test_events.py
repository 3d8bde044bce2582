import json
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prices.database.uuid7 import first_id_at
from prices.models import PricePoint
from prices.publishing.events import EventError, decode_event, encode_event

NOW = datetime(2026, 11, 22, 14, 30, 5, tzinfo=UTC)
EVENT_ID = UUID(int=first_id_at(NOW).int | (7 << 76) | (2 << 62) | 99)
RAW_ID = uuid.uuid4()


def make_point(price: str = "150.25", *, observed_at: datetime | None = NOW) -> PricePoint:
    return PricePoint(
        id=EVENT_ID,
        symbol="AAPL",
        provider="alpha_vantage",
        price=Decimal(price),
        currency=None,
        observed_at=observed_at,
        precision="second" if observed_at else "unknown",
        received_at=NOW,
        raw=RAW_ID,
    )


def make_value(**changes: Any) -> dict[str, Any]:
    value = {
        "event_id": str(EVENT_ID),
        "symbol": "AAPL",
        "price": 150.25,
        "timestamp": "2026-11-22T14:30:00Z",
        "source": "alpha_vantage",
        "raw_response_id": str(RAW_ID),
    }
    return {name: field for name, field in (value | changes).items() if field is not ...}


def decode(value: bytes, **changes: Any) -> Any:
    arguments: dict[str, Any] = {"key": b"AAPL", "headers": [("v", b"1")], "broker_time": NOW} | changes
    key = arguments.pop("key")
    return decode_event(key, value, **arguments)


def test_event_encoded_has_the_contracts_keys_and_digits() -> None:
    message = encode_event(make_point(), poll=None)
    assert message.key == b"AAPL"
    assert list(json.loads(message.value)) == [
        "event_id",
        "symbol",
        "price",
        "timestamp",
        "source",
        "raw_response_id",
    ]
    assert b'"price":150.25,' in message.value
    assert b'"timestamp":"2026-11-22T14:30:05Z"' in message.value
    assert dict(message.headers) == {
        "v": b"1",
        "precision": b"second",
        "currency": b"",
        "received_at": b"2026-11-22T14:30:05+00:00",
        "poll_id": b"",
    }


@pytest.mark.parametrize(
    ("price", "digits"), [("0.0000001", b"0.0000001"), ("1E+3", b"1000"), ("999999999999.000000000001",) * 2]
)
def test_event_price_never_has_an_exponent(price: str, digits: bytes | str) -> None:
    expected = digits.encode() if isinstance(digits, str) else digits
    assert b'"price":' + expected + b"," in encode_event(make_point(price), poll=None).value


@given(st.decimals(min_value="1e-16", max_value="999999999999", places=16, allow_nan=False))
def test_event_round_trip_keeps_every_digit(price: Decimal) -> None:
    message = encode_event(make_point(format(price, "f")), poll=uuid.uuid4())
    event = decode_event(message.key, message.value, headers=message.headers, broker_time=NOW)
    assert (event.event_id, event.symbol, event.provider) == (EVENT_ID, "AAPL", "alpha_vantage")
    assert event.price == price
    assert event.observed_at == NOW


def test_event_without_provider_time_says_when_it_was_received() -> None:
    message = encode_event(make_point(observed_at=None), poll=None)
    assert json.loads(message.value)["timestamp"] == "2026-11-22T14:30:05Z"
    event = decode_event(message.key, message.value, headers=message.headers, broker_time=NOW)
    assert event.observed_at is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"price": "150.25"}, "price"),
        ({"price": None}, "price"),
        ({"price": -1}, "price"),
        ({"price": 0}, "price"),
        ({"price": True}, "price"),
        ({"price": [1]}, "price"),
        ({"price": 10**13}, "price"),
        ({"price": ...}, "price"),
        ({"symbol": "aapl"}, "symbol"),
        ({"symbol": "A" * 33}, "symbol"),
        ({"symbol": "MSFT"}, "key"),
        ({"event_id": str(uuid.uuid4())}, "UUIDv7"),
        ({"event_id": "x"}, "event_id"),
        ({"event_id": "ffffffff-ffff-7fff-bfff-ffffffffffff"}, "ahead"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"timestamp": "2026-11-22T14:30:00"}, "timestamp"),
        ({"source": ""}, "source"),
        ({"source": "a\0b"}, "NUL"),
        ({"raw_response_id": 5}, "raw_response_id"),
    ],
)
def test_event_with_wrong_field_is_refused_with_its_reason(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(EventError, match=reason):
        decode(json.dumps(make_value(**changes)).encode())


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e400", "1E+1000000", "0x10", "1" * 500])
def test_event_with_odd_number_is_refused(number: str) -> None:
    value = json.dumps(make_value(price=1234567)).replace("1234567", number)
    with pytest.raises(EventError):
        decode(value.encode())


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'"x"'])
def test_event_that_is_no_object_is_refused(value: bytes | None) -> None:
    with pytest.raises(EventError):
        decode_event(b"AAPL", value, headers=[], broker_time=NOW)


def test_event_of_unknown_version_is_refused() -> None:
    with pytest.raises(EventError, match="version"):
        decode(json.dumps(make_value()).encode(), headers=[("v", b"2")])


def test_event_without_key_is_refused() -> None:
    with pytest.raises(EventError, match="key"):
        decode(json.dumps(make_value()).encode(), key=None)


def test_event_id_a_minute_ahead_of_the_broker_is_taken() -> None:
    assert decode(json.dumps(make_value()).encode(), broker_time=NOW - timedelta(seconds=60))
    with pytest.raises(EventError, match="ahead"):
        decode(json.dumps(make_value()).encode(), broker_time=NOW - timedelta(seconds=61))


@given(st.binary())
def test_event_of_any_bytes_never_raises_anything_else(value: bytes) -> None:
    with pytest.raises(EventError):
        decode(value)
