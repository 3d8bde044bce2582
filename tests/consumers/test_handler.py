"""What is a price event is averaged, what is none becomes a dead letter, in one transaction."""

import json
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from consumers.handler import AverageHandler, read_messages
from consumers.loop import NotNowError
from consumers.messages import ReceivedMessage
from consumers.store import AverageStore
from prices.events import encode_event
from prices.models import DeadLetter, PricePoint, SymbolAverage
from tests.consumers.samples import BEGIN, RAW, event, event_id

V1 = (("v", b"1"), ("precision", b"second"))


def message(offset: int = 0, **changes: Any) -> ReceivedMessage:
    """Give the message of a sound event, with these parts changed."""
    unsaved = PricePoint(
        id=event_id(offset),
        symbol="SIM-A",
        provider="simulated",
        price=event(offset).price,
        observed_at=BEGIN,
        precision="second",
        received_at=BEGIN,
        raw=RAW,
    )
    encoded = encode_event(unsaved, poll=None)
    parts: dict[str, Any] = {
        "topic": "t",
        "partition": 0,
        "offset": offset,
        "key": encoded.key,
        "value": encoded.value,
        "headers": encoded.headers,
        "broker_time": BEGIN + timedelta(seconds=1),
    }
    return ReceivedMessage(**parts | changes)


def with_field(name: str, value: Any, *, offset: int = 0) -> ReceivedMessage:
    fields = json.loads(message(offset).value or b"")
    return message(offset, value=json.dumps(fields | {name: value}).encode())


def without_field(name: str) -> ReceivedMessage:
    fields = json.loads(message().value or b"")
    del fields[name]
    return message(value=json.dumps(fields).encode())


POISON = {
    "no value": message(value=None),
    "empty": message(value=b""),
    "no json": message(value=b"{"),
    "no utf-8": message(value=b"\xff\xfe{}"),
    "no object": message(value=b"[1, 2]"),
    "nested without end": message(value=b'{"a":' * 50_000),
    "nan": message(value=(message().value or b"").replace(b":100,", b":NaN,")),
    **{f"without {name}": without_field(name) for name in json.loads(message().value or b"")},
    "price text": with_field("price", "100"),
    "price null": with_field("price", None),
    "price negative": with_field("price", -1),
    "price zero": with_field("price", 0),
    "price too large": with_field("price", 10**12),
    "price too fine": message(value=(message().value or b"").replace(b":100,", b":0.0000000000001,")),
    "id of version 4": with_field("event_id", "8c4e2f7e-6a2e-4bd1-9a63-3a3f1f6f2c11"),
    "id no uuid": with_field("event_id", "42"),
    "id in the future": message(120_000),
    "symbol lower case": with_field("symbol", "sim-a"),
    "symbol with nul": with_field("symbol", "SIM\0"),
    "source with nul": with_field("source", "a\0b"),
    "time before year 1": with_field("timestamp", "0001-01-01T00:00:00+14:00"),
    "time without zone": with_field("timestamp", "2026-01-01T00:00:00"),
    "key of another symbol": message(key=b"SIM-B"),
    "no key": message(key=None),
    "huge key": message(key=b"k" * 1_000_000),
    "unknown version": message(headers=[("v", b"2")]),
    "empty version": message(headers=[("v", None)]),
}


@pytest.fixture
def handler(transactional_db: None) -> Iterator[AverageHandler]:
    made = AverageHandler(AverageStore())
    yield made
    made.close()


@pytest.mark.parametrize("name", POISON)
def test_poison_is_a_dead_letter_with_a_reason(name: str) -> None:
    poison = POISON[name]
    read, dead_letters = read_messages([message(1), poison, message(2)])
    assert [each.event_id for each in read] == [event_id(1), event_id(2)]
    (letter,) = dead_letters
    assert (letter.key, letter.value, letter.offset) == (poison.key, poison.value, poison.offset)
    assert letter.reason


def test_every_poison_is_stored_and_the_rest_goes_on(handler: AverageHandler) -> None:
    poison = [each._replace(offset=1000 + number) for number, each in enumerate(POISON.values())]
    sound: Sequence[ReceivedMessage] = [message(number) for number in range(5)]
    batch = [*poison[:10], *sound[:2], *poison[10:], *sound[2:]]
    handler.write(batch)
    handler.write(batch)
    assert DeadLetter.objects.count() == len(poison)
    assert list(SymbolAverage.objects.values_list("average", flat=True).order_by("event_id")) == [
        *[None] * 4,
        100,
    ]
    stored = DeadLetter.objects.get(offset=1000 + list(POISON).index("huge key"))
    assert stored.key is not None
    assert len(stored.key) == 1_000_000
    assert stored.message_timestamp == message().broker_time


def test_dead_letter_names_the_group(handler: AverageHandler, settings: Any) -> None:
    settings.KAFKA_CONSUMER_GROUP = "a-group"
    handler.write([message(value=b"")])
    assert DeadLetter.objects.get().group == "a-group"


def test_event_without_a_time_of_the_provider_has_none(handler: AverageHandler) -> None:
    handler.write([message(headers=[("v", b"1"), ("precision", b"unknown")])])
    assert SymbolAverage.objects.get().observed_at is None


def test_database_away_asks_for_the_batch_again(
    handler: AverageHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler.write([message(0)])
    handler.close()
    with monkeypatch.context() as patch:
        patch.setitem(connection.settings_dict, "PORT", "1")
        with pytest.raises(NotNowError, match=r"^connection [^\n]+$"):
            handler.write([message(1)])
    handler.write([message(1)])
    assert SymbolAverage.objects.count() == 2
