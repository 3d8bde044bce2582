"""Dead letters found, replayed through the real Kafka and the real consumer, and deleted."""

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import KafkaException, Message
from django.conf import settings as django_settings
from django.db import connection
from django.test import override_settings

from consumers import originals
from consumers.dead_letters import (
    NO_ORIGINAL,
    Filter,
    UnknownLettersError,
    check_known,
    discard,
    matching,
    replay,
    summaries,
)
from consumers.handler import AverageHandler
from consumers.lag import messages_left
from consumers.messages import UNREADABLE_HEADERS
from consumers.store import AverageStore
from prices.ids import first_id_at
from prices.models import DeadLetter, SymbolAverage
from tests.consumers.running import make_topic_anew, running, send_parts, send_with_header, trim
from tests.consumers.samples import assert_averages_right, event, message
from tests.waiting import wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("topic", "heartbeats")]


@pytest.fixture
def consumer(transactional_db: None, topic: str, heartbeats: None) -> Iterator[None]:
    """Run the real consumer for the test."""
    with running(AverageHandler(AverageStore())):
        yield


def letters_of(*poison: Message) -> list[DeadLetter]:
    """Send poison and give the dead letters that it becomes, in order; a consumer must run."""
    before = DeadLetter.objects.count()
    send_parts(*poison)
    wait_until(lambda: DeadLetter.objects.count() == before + len(poison))
    return list(DeadLetter.objects.order_by("offset")[before:])


def letter_after(letter: DeadLetter) -> DeadLetter:
    """Wait for the dead letter that a replay of the only one becomes, and give it."""
    others = DeadLetter.objects.exclude(id=letter.id)
    wait_until(others.exists)
    return others.get()


def add_letter(offset: int, **changes: Any) -> DeadLetter:
    """Add a row that no message is behind."""
    parts = {
        "topic": django_settings.KAFKA_TOPIC,
        "partition": 0,
        "message_timestamp": datetime(2026, 1, 1, tzinfo=UTC),
        "group": "g",
        "reason": "r",
    }
    return DeadLetter.objects.create(offset=offset, **parts | changes)


def from_a_minute_ahead(seconds: float) -> Message:
    """Give an event of a provider without a time, with an id that is too far ahead for some seconds."""
    moment = datetime.now(UTC) + timedelta(seconds=60 + seconds)
    event_id = uuid.UUID(int=first_id_at(moment).int | 7 << 76 | 2 << 62 | 5)
    value = (message().value() or b"").replace(str(uuid_of(message())).encode(), str(event_id).encode())
    return message(value=value, headers=[("v", b"1"), ("precision", b"unknown")])


def uuid_of(sent: Message) -> uuid.UUID:
    return uuid.UUID((sent.value() or b"").split(b'"')[3].decode())


def all_consumed() -> bool:
    return messages_left(wait_s=5) == 0


@pytest.mark.usefixtures("consumer")
def test_message_that_is_sound_by_now_becomes_an_average_with_what_its_headers_say() -> None:
    (letter,) = letters_of(from_a_minute_ahead(1.5))
    assert "60 s ahead" in letter.reason
    wait_until(lambda: time.time() > letter.message_timestamp.timestamp() + 2)
    assert replay([letter.id]).sent == 1
    wait_until(SymbolAverage.objects.exists)
    assert SymbolAverage.objects.get().observed_at is None
    letter.refresh_from_db()
    assert letter.replayed_at is not None
    assert DeadLetter.objects.count() == 1


@pytest.mark.usefixtures("consumer")
def test_message_that_still_is_poison_becomes_a_new_dead_letter() -> None:
    headers = [("v", b"2"), ("v", b"1"), ("extra", None)]
    (letter,) = letters_of(message(headers=headers))
    result = replay([letter.id])
    assert (result.sent, result.passed_over, result.failed) == (1, 0, [])
    wait_until(lambda: DeadLetter.objects.count() == 2)
    old, new = DeadLetter.objects.order_by("id")
    assert old.id == letter.id
    assert old.replayed_at is not None
    assert new.replayed_at is None
    assert (new.key, new.value, new.reason) == (old.key, old.value, old.reason)
    assert SymbolAverage.objects.count() == 0


@pytest.mark.usefixtures("consumer")
def test_headers_are_sent_as_they_were() -> None:
    headers = [("v", b"2"), ("v", b"1"), ("extra", None), ("extra", b"\xff")]
    (letter,) = letters_of(message(headers=headers))
    replay([letter.id])
    new = letter_after(letter)
    with originals.Originals() as reader:
        found = reader.find(new)
    assert found is not None
    assert list(found.headers or ()) == headers


@pytest.mark.usefixtures("consumer")
@pytest.mark.parametrize(
    "changes",
    [
        {"value": None},
        {"key": None},
        {"key": b"k" * 1_000_000},
        {"value": b"\xff\x00" * 500_000},
        {"headers": None, "value": b"{"},
    ],
    ids=["no value", "no key", "huge key", "huge value", "no headers"],
)
def test_any_poison_can_be_replayed(changes: dict[str, Any]) -> None:
    (letter,) = letters_of(message(**changes))
    assert replay([letter.id]).sent == 1
    new = letter_after(letter)
    assert (new.key, new.value) == (letter.key, letter.value)


@pytest.mark.usefixtures("consumer")
def test_replayed_letter_is_passed_over() -> None:
    letters = letters_of(message(value=b"{"), message(value=b"["))
    ids = [letter.id for letter in letters]
    assert replay([*ids, *ids]).sent == 2
    again = replay(ids)
    assert (again.sent, again.passed_over, again.failed) == (0, 2, [])
    assert all_consumed()
    assert DeadLetter.objects.count() == 4


@pytest.mark.usefixtures("consumer")
def test_replays_at_once_send_each_letter_once() -> None:
    ids = [letter.id for letter in letters_of(*[message(value=b"%d" % number) for number in range(30)])]

    def replay_and_close(_: int) -> int:
        try:
            return replay(ids).sent
        finally:
            connection.close()

    with ThreadPoolExecutor(3) as threads:
        assert sum(threads.map(replay_and_close, range(3))) == 30
    assert all_consumed()
    assert DeadLetter.objects.count() == 60


@pytest.mark.usefixtures("consumer")
def test_replay_that_was_cut_off_before_its_note_doubles_no_average() -> None:
    (letter,) = letters_of(from_a_minute_ahead(1))
    wait_until(lambda: time.time() > letter.message_timestamp.timestamp() + 1.5)
    replay([letter.id])
    DeadLetter.objects.update(replayed_at=None)
    assert replay([letter.id]).sent == 1
    assert all_consumed()
    assert SymbolAverage.objects.count() == 1
    assert DeadLetter.objects.count() == 1


@pytest.mark.usefixtures("consumer")
def test_letter_whose_message_was_deleted_fails_and_the_others_go() -> None:
    gone, there = letters_of(message(value=b"{"), message(value=b"["))
    trim(0, before=1)
    result = replay([gone.id, there.id])
    assert (result.sent, result.failed) == (1, [(gone.id, NO_ORIGINAL)])
    gone.refresh_from_db()
    assert gone.replayed_at is None


@pytest.mark.usefixtures("consumer")
def test_message_with_a_header_of_no_utf8_is_kept_and_cannot_be_replayed() -> None:
    """confluent-kafka cannot give the headers of such a message; the consumer goes on behind it."""
    send_with_header(b"\xff\xfe")
    wait_until(DeadLetter.objects.exists)
    (after,) = letters_of(message(1, value=b"{"))
    letter = DeadLetter.objects.exclude(id=after.id).get()
    assert (letter.offset, letter.value, letter.reason) == (0, b"{}", UNREADABLE_HEADERS)
    result = replay([letter.id, after.id])
    assert (result.sent, result.failed) == (1, [(letter.id, UNREADABLE_HEADERS)])


def test_messages_read_together_with_one_whose_header_is_no_utf8_are_averaged() -> None:
    for first in (0, 3):
        send_parts(*(message(number) for number in range(first, first + 3)))
        send_with_header(b"\xff")
    with running(AverageHandler(AverageStore())):
        wait_until(lambda: (DeadLetter.objects.count(), SymbolAverage.objects.count()) == (2, 6))
    assert list(DeadLetter.objects.order_by("offset").values_list("offset", flat=True)) == [3, 7]
    assert_averages_right([event(number) for number in range(6)])


def test_other_message_at_the_offset_is_not_sent() -> None:
    with running(AverageHandler(AverageStore())):
        (letter,) = letters_of(message(value=b"{"))
    make_topic_anew()
    send_parts(message(value=b"{"))
    assert replay([letter.id]).failed == [(letter.id, NO_ORIGINAL)]


def test_letter_of_an_unknown_topic_or_partition_fails() -> None:
    letters = [add_letter(0, topic="no-such-topic"), add_letter(0, partition=99)]
    result = replay([letter.id for letter in letters])
    assert {reason for _, reason in result.failed} == {NO_ORIGINAL}
    assert len(result.failed) == 2


def test_kafka_away_raises_and_notes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(originals, "ANSWER_TIMEOUT_S", 0.3)
    letter = add_letter(0)
    with override_settings(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1"), pytest.raises(KafkaException):
        replay([letter.id])
    letter.refresh_from_db()
    assert letter.replayed_at is None


def test_filters_and_newest_first() -> None:
    old = add_letter(0, reason="The price is bad", created_at=datetime(2026, 1, 1, tzinfo=UTC))
    other = add_letter(1, topic="other", reason="no value", replayed_at=datetime.now(UTC))
    new = add_letter(2, reason="bad PRICE")
    assert list(matching(Filter())) == [new, other, old]
    assert list(matching(Filter(reason="price"))) == [new, old]
    assert list(matching(Filter(since=datetime(2026, 1, 2, tzinfo=UTC)))) == [new, other]
    assert list(matching(Filter(topic="other"))) == [other]
    assert list(matching(Filter(limit=2))) == [new, other]
    assert list(matching(Filter(limit=2), only_open=True)) == [new, old]


def test_summary_has_the_start_of_the_key_and_the_lengths() -> None:
    add_letter(0, key=b"\xff" * 1000, value=b"v" * 5000)
    add_letter(1)
    empty, full = summaries(Filter())
    assert (full.key, full.key_bytes, full.value_bytes) == (b"\xff" * 64, 1000, 5000)
    assert (empty.key, empty.key_bytes, empty.value_bytes) == (None, None, None)
    assert {"key", "value"} <= full.letter.get_deferred_fields()


def test_discard_deletes_these_and_no_other() -> None:
    letters = [add_letter(number) for number in range(3)]
    assert discard([letters[0].id, letters[2].id, letters[2].id]) == 2
    assert DeadLetter.objects.get() == letters[1]


def test_unknown_id_is_named() -> None:
    known, unknown = add_letter(0).id, uuid.uuid4()
    check_known([known])
    with pytest.raises(UnknownLettersError, match=str(unknown)):
        check_known([known, unknown])
