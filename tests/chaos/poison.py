"""Messages that are no price events, each with the reason that its dead letter has to give."""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

Headers: TypeAlias = list[tuple[str, str | bytes | None]]

MEGABYTE = 1_000_000
HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Poison:
    """A message as it is sent. `reason` is a part of what the dead letter says of it."""

    kind: str
    reason: str
    key: bytes
    value: bytes | None
    headers: Headers


def id_at(milliseconds: int, rng: Random) -> uuid.UUID:
    """Return a UUIDv7 of this epoch time."""
    return uuid.UUID(
        int=milliseconds << 80 | 7 << 76 | rng.getrandbits(12) << 64 | 2 << 62 | rng.getrandbits(62)
    )


def make_poison(rng: Random, *, now_ms: int) -> Poison:
    """Return one of the kinds by chance; each differs from all others by its symbol or its key."""
    kind = rng.choice(list(_KINDS))
    return _KINDS[kind](kind, rng, now_ms)


def _event(rng: Random, now_ms: int, **changes: object) -> dict[str, object]:
    return {
        "event_id": str(id_at(now_ms, rng)),
        "symbol": f"SIM-POISON-{rng.getrandbits(48):X}",
        "price": 100.5,
        "timestamp": "2026-01-05T12:00:00Z",
        "source": "chaos",
        "raw_response_id": str(id_at(now_ms, rng)),
    } | changes


_Make: TypeAlias = Callable[[str, Random, int], Poison]


def _changed(reason: str, **changes: object) -> _Make:
    """Return a maker of events with other fields; a field that is None is left out."""

    def make(kind: str, rng: Random, now_ms: int) -> Poison:
        event = _event(rng, now_ms, **changes)
        fields = {name: value for name, value in event.items() if value is not None}
        return Poison(kind, reason, str(event["symbol"]).encode(), json.dumps(fields).encode(), [])

    return make


def _raw(reason: str, value: bytes | None) -> _Make:
    def make(kind: str, rng: Random, _now_ms: int) -> Poison:
        return Poison(kind, reason, f"SIM-POISON-{rng.getrandbits(48):X}".encode(), value, [])

    return make


def _huge_key(kind: str, rng: Random, now_ms: int) -> Poison:
    key = f"{rng.getrandbits(48):X}".encode().ljust(MEGABYTE, b"x")
    return Poison(kind, "the key is not the symbol", key, json.dumps(_event(rng, now_ms)).encode(), [])


def _other_version(kind: str, rng: Random, now_ms: int) -> Poison:
    event = _event(rng, now_ms)
    key = str(event["symbol"]).encode()
    return Poison(kind, "is not known", key, json.dumps(event).encode(), [("v", b"2")])


def _from_the_future(kind: str, rng: Random, now_ms: int) -> Poison:
    event = _event(rng, now_ms, event_id=str(id_at(now_ms + HOUR_MS, rng)))
    return Poison(kind, "ahead", str(event["symbol"]).encode(), json.dumps(event).encode(), [])


_KINDS: dict[str, _Make] = {
    "bad JSON": _raw("cannot be read", b'{"event_id": '),
    "no text": _raw("cannot be read", b"\xff\xfe\x00"),
    "no value": _raw("there is no value", None),
    "missing field": _changed("cannot be read", source=None),
    "wrong field": _changed("no time of RFC 3339", timestamp="yesterday"),
    "NaN price": _changed("cannot be read", price=float("nan")),
    "negative price": _changed("no positive number", price=-1),
    "price as text": _changed("no positive number", price="100.5"),
    "random id": _changed("no UUIDv7", event_id="6f1c1f0e-7f0b-4c1e-9d52-0a2b6d3f4e55"),
    "1 MB key": _huge_key,
    "unknown version": _other_version,
    "id from the future": _from_the_future,
}
