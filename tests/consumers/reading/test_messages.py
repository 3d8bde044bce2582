"""Kafka's messages in the service's own types."""

from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_NOT_AVAILABLE, Message

from consumers.reading.messages import received


def kafka_message(**changes: Any) -> Message:
    parts: dict[str, Any] = {
        "topic": "t",
        "partition": 3,
        "offset": 7,
        "key": b"k",
        "value": b"v",
        "headers": [("v", b"1"), ("empty", None)],
        "timestamp": (TIMESTAMP_CREATE_TIME, 1_767_614_400_123),
    }
    return Message(**parts | changes)


def test_message_keeps_what_kafka_says() -> None:
    message = received(kafka_message())
    assert (message.topic, message.partition, message.offset) == ("t", 3, 7)
    assert (message.key, message.value) == (b"k", b"v")
    assert list(message.headers or ()) == [("v", b"1"), ("empty", None)]
    assert message.broker_time == datetime(2026, 1, 5, 12, 0, 0, 123_000, tzinfo=UTC)


def test_message_without_headers_has_an_empty_list_of_them() -> None:
    assert received(kafka_message(headers=None)).headers == ()


@pytest.mark.parametrize(
    ("kind", "milliseconds", "year"),
    [
        (TIMESTAMP_NOT_AVAILABLE, -1, 1970),
        (TIMESTAMP_CREATE_TIME, -1, 1970),
        (TIMESTAMP_CREATE_TIME, 2**62, 9999),
    ],
)
def test_message_with_no_sound_time_gets_a_fixed_one(kind: int, milliseconds: int, year: int) -> None:
    assert received(kafka_message(timestamp=(kind, milliseconds))).broker_time.year == year
