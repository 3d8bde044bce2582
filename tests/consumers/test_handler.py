"""What is a price event is averaged, what is none becomes a dead letter, in one transaction."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from confluent_kafka import Message
from django.db import connection

from consumers.averages.columns import id_of
from consumers.averages.store import AverageStore
from consumers.handler import AverageHandler
from consumers.reading.decoding import Decoded, decode_messages
from consumers.reading.pipeline import RetryLaterError
from prices.models import DeadLetter, SymbolAverage
from tests.consumers.poison import POISON, sound_value
from tests.consumers.samples import BEGIN, assert_averages_right, event, event_id, message


def handle(handler: AverageHandler, *messages: Message) -> None:
    write(handler, handler.read(messages))


def write(handler: AverageHandler, batch: Decoded) -> None:
    stored = handler.prepare(batch, speculative=False)
    assert stored is not None
    stored()


def test_messages_read_in_parts_are_stored_as_those_read_at_once(handler: AverageHandler) -> None:
    messages = [message(number, **({"value": b"{"} if number % 3 == 2 else {})) for number in range(12)]
    parts = [handler.read(part) for part in (messages[:5], messages[5:6], messages[6:])]
    write(handler, handler.join(parts))
    assert_averages_right([event(number) for number in range(12) if number % 3 != 2])
    assert stored_offsets() == [2, 5, 8, 11]


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
        with pytest.raises(RetryLaterError, match=r"^connection [^\n]+$"):
            handle(handler, message(1))
    handle(handler, message(1))
    assert SymbolAverage.objects.count() == 2
