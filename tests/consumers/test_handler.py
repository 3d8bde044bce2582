"""What is a price event is averaged, what is none becomes a dead letter, in one transaction."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Message
from django.db import connection

from consumers.columns import id_of
from consumers.decoding import Decoded, decode_messages
from consumers.handler import AverageHandler
from consumers.pipeline import NotNowError
from consumers.store import AverageStore
from prices.models import DeadLetter, SymbolAverage
from tests.consumers.samples import BEGIN, assert_averages_right, event, event_id, message


def sound_value(offset: int = 0) -> bytes:
    return message(offset).value() or b""


def with_field(name: str, value: Any) -> dict[str, Any]:
    return {"value": json.dumps(json.loads(sound_value()) | {name: value}).encode()}


def without_field(name: str) -> dict[str, Any]:
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
    "price too fine": {"value": sound_value().replace(b":100,", b":0.0000000000001,")},
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


def handle(handler: AverageHandler, *messages: Message) -> None:
    write(handler, handler.read(messages))


def write(handler: AverageHandler, batch: Decoded) -> None:
    stored = handler.plan(batch, ahead=False)
    assert stored is not None
    stored()


def test_messages_read_in_parts_are_stored_as_those_read_at_once(handler: AverageHandler) -> None:
    messages = [message(number, **({"value": b"{"} if number % 3 == 2 else {})) for number in range(12)]
    parts = [handler.read(part) for part in (messages[:5], messages[5:6], messages[6:])]
    write(handler, handler.join(parts))
    assert_averages_right([event(number) for number in range(12) if number % 3 != 2])
    assert stored_offsets() == [2, 5, 8, 11]


@pytest.mark.parametrize("marked", [[], [0], [2], [1, 2, 5, 6], [0, 3, 8], range(9)])
def test_selected_messages_are_stored_alone(handler: AverageHandler, marked: list[int]) -> None:
    messages = [message(number, **({"value": b"{"} if number % 3 == 2 else {})) for number in range(9)]
    batch = handler.join([handler.read(messages[:4]), handler.read(messages[4:])])
    write(handler, batch.select(np.isin(np.arange(9), marked)))
    assert_averages_right([event(number) for number in marked if number % 3 != 2])
    assert stored_offsets() == [number for number in marked if number % 3 == 2]


def test_selection_of_a_selection_keeps_its_places(handler: AverageHandler) -> None:
    messages = [message(number, **({"value": b"{"} if number % 3 == 2 else {})) for number in range(9)]
    left = handler.read(messages).select(np.arange(9) >= 2)
    write(handler, left.select(np.arange(7) % 2 == 0))
    assert_averages_right([event(number) for number in (4, 6)])
    assert stored_offsets() == [2, 8]


def stored_offsets() -> list[int]:
    return list(DeadLetter.objects.order_by("offset").values_list("offset", flat=True))


@pytest.fixture
def handler(transactional_db: None) -> Iterator[AverageHandler]:
    made = AverageHandler(AverageStore())
    yield made
    made.close()


@pytest.mark.parametrize("name", POISON)
def test_poison_is_a_dead_letter_with_a_reason(name: str) -> None:
    poison = message(7, **POISON[name])
    decoded = decode_messages([message(1), poison, message(2)])
    assert [id_of(point) for point in decoded.events.points] == [event_id(1), event_id(2)]
    (letter,) = decoded.dead_letters
    assert (letter.key, letter.value, letter.offset) == (poison.key(), poison.value(), 7)
    assert letter.reason


def test_every_poison_is_stored_and_the_rest_goes_on(handler: AverageHandler) -> None:
    poison = [
        message(1000 + number, **{"value": sound_value()} | each)
        for number, each in enumerate(POISON.values())
    ]
    sound = [message(number) for number in range(5)]
    batch = [*poison[:10], *sound[:2], *poison[10:], *sound[2:]]
    handle(handler, *batch)
    handle(handler, *batch)
    assert DeadLetter.objects.count() == len(poison)
    assert list(SymbolAverage.objects.values_list("average", flat=True).order_by("event_id")) == [
        *[None] * 4,
        100,
    ]
    stored = DeadLetter.objects.get(offset=1000 + list(POISON).index("huge key"))
    assert stored.key is not None
    assert len(stored.key) == 1_000_000
    assert stored.message_timestamp == BEGIN + timedelta(seconds=1)


def test_dead_letters_and_averages_of_a_batch_are_one_transaction(handler: AverageHandler) -> None:
    handle(handler, message(0), message(1, value=b"{"), message(2), message(3, key=None))
    with connection.cursor() as cursor:
        cursor.execute("SELECT xmin::text FROM dead_letters UNION SELECT xmin::text FROM symbol_averages")
        assert len(cursor.fetchall()) == 1


def test_dead_letter_names_the_group(handler: AverageHandler, settings: Any) -> None:
    settings.KAFKA_CONSUMER_GROUP = "a-group"
    handle(handler, message(value=b""))
    assert DeadLetter.objects.get().group == "a-group"


def test_event_without_a_time_of_the_provider_has_none(handler: AverageHandler) -> None:
    handle(handler, message(headers=[("v", b"1"), ("precision", b"unknown")]))
    assert SymbolAverage.objects.get().observed_at is None


def test_database_away_asks_for_the_batch_again(
    handler: AverageHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle(handler, message(0))
    handler.close()
    with monkeypatch.context() as patch:
        patch.setitem(connection.settings_dict, "PORT", "1")
        with pytest.raises(NotNowError, match=r"^connection [^\n]+$"):
            handle(handler, message(1))
    handle(handler, message(1))
    assert SymbolAverage.objects.count() == 2
