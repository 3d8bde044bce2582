"""Messages that cannot be read, by what is wrong with them: changes of a sound one."""

import json
from typing import Any

from tests.consumers.samples import message


def sound_value(offset: int = 0) -> bytes:
    """Return the value of a message that can be read."""
    return message(offset).value() or b""


def with_field(name: str, value: Any) -> dict[str, Any]:
    """Return the change of one field of the value."""
    return {"value": json.dumps(json.loads(sound_value()) | {name: value}).encode()}


def without_field(name: str) -> dict[str, Any]:
    """Return the change that takes one field from the value."""
    fields = json.loads(sound_value())
    del fields[name]
    return {"value": json.dumps(fields).encode()}


POISON: dict[str, dict[str, Any]] = {
    "no value": {"value": None},
    "empty": {"value": b""},
    "no json": {"value": b"{"},
    "no utf-8": {"value": b"\xff\xfe{}"},
    "no object": {"value": b"[1, 2]"},
    "nested without end": {"value": b'{"a":' * 50_000},
    "a megabyte of value": {"value": b"x" * 1_000_000},
    "zero bytes": {"value": b"\0" * 5},
    "no utf-8 in a field": {"value": sound_value().replace(b"simulated", b"\xff\xfe")},
    "nan": {"value": sound_value().replace(b":100,", b":NaN,")},
    **{f"without {name}": without_field(name) for name in json.loads(sound_value())},
    "price text": with_field("price", "100"),
    "price infinite": {"value": sound_value().replace(b":100,", b":Infinity,")},
    "price not a number in text": with_field("price", "NaN"),
    "price beyond all bounds": {"value": sound_value().replace(b":100,", b":1e400,")},
    "price null": with_field("price", None),
    "price negative": with_field("price", -1),
    "price zero": with_field("price", 0),
    "price zero with decimals": {"value": sound_value().replace(b":100,", b":0.000,")},
    "price too large": with_field("price", 10**12),
    "price too fine": {"value": sound_value().replace(b":100,", b":0.00000000000000001,")},
    "id of version 4": with_field("event_id", "8c4e2f7e-6a2e-4bd1-9a63-3a3f1f6f2c11"),
    "id of another variant": with_field("event_id", "019b8e2f-6a2e-7bd1-1a63-3a3f1f6f2c11"),
    "id no uuid": with_field("event_id", "42"),
    # Centuries ahead: of a real broker's time, too.
    "id in the future": {"value": sound_value(10**13)},
    "symbol lower case": with_field("symbol", "sim-a"),
    "symbol with nul": with_field("symbol", "SIM\0"),
    "source with nul": with_field("source", "a\0b"),
    "source of a number": with_field("source", 5),
    "time of no date": with_field("timestamp", "yesterday"),
    "time before year 1": with_field("timestamp", "0001-01-01T00:00:00+14:00"),
    "time without zone": with_field("timestamp", "2026-01-01T00:00:00"),
    "key of another symbol": {"key": b"SIM-B"},
    "no key": {"key": None},
    "key no utf-8": {"key": b"\xff\xfe"},
    "key with nul": {"key": b"SIM-A\0"},
    "huge key": {"key": b"k" * 1_000_000},
    "unknown version": {"headers": [("v", b"2"), ("precision", b"second")]},
    "empty version": {"headers": [("v", None)]},
}
