"""Dead letters found, replayed through the real Kafka and the real consumer, and deleted."""

import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import KafkaException, Message, TopicPartition
from django.conf import settings as django_settings
from django.db import connection
from django.test import override_settings

from consumers.averages.store import AverageStore
from consumers.handler import AverageHandler
from consumers.reading.decoding import UNREADABLE_HEADERS
from consumers.repair import dead_letters
from consumers.repair.dead_letters import (
    NO_HEADERS,
    NO_SUCH_TOPIC,
    UNSENDABLE_HEADERS,
    Filter,
    Replay,
    UnknownLettersError,
    discard,
    matching,
    select,
    summaries,
    with_ids,
)
from prices.database.uuid7 import epoch_ms, first_id_at
from prices.models import DeadLetter, SymbolAverage
from prices.publishing.kafka_clients import make_consumer
from tests.consumers.running import messages_left, running, send_parts, send_with_header, trim
from tests.consumers.samples import BEGIN, assert_averages_right, event, message
from tests.kafka_topics import change_topic
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
        "headers": [],
        "reason": "r",
    }
    return DeadLetter.objects.create(offset=offset, **parts | changes)


def from_a_minute_ahead(seconds: float) -> Message:
    """Return an event of a provider without a time, with an id that is too far ahead for some seconds."""
    moment = datetime.now(UTC) + timedelta(seconds=60 + seconds)
    event_id = uuid.UUID(int=first_id_at(moment).int | 7 << 76 | 2 << 62 | 5)
    value = (message().value() or b"").replace(str(uuid_of(message())).encode(), str(event_id).encode())
    return message(value=value, headers=[("v", b"1"), ("precision", b"unknown")])


def uuid_of(sent: Message) -> uuid.UUID:
    return uuid.UUID((sent.value() or b"").split(b'"')[3].decode())


def replay(ids: Sequence[uuid.UUID]) -> Replay:
    return dead_letters.replay(with_ids(ids))


def add_letters(count: int, **changes: Any) -> None:
    """Add rows that no messages are behind, newest last."""
    parts: dict[str, Any] = {
        "topic": django_settings.KAFKA_TOPIC,
        "partition": 0,
        "message_timestamp": datetime(2026, 1, 1, tzinfo=UTC),
        "group": "g",
        "value": b"{",
        "headers": [],
        "reason": "r",
    }
    DeadLetter.objects.bulk_create(DeadLetter(offset=n, **parts | changes) for n in range(count))


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
    assert (result.sent, result.skipped, result.failed) == (1, 0, 0)
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
    assert letter.headers == [[b"v", b"2"], [b"v", b"1"], [b"extra", None], [b"extra", b"\xff"]]
    replay([letter.id])
    assert letter_after(letter).headers == letter.headers


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
    assert (new.key, new.value, new.headers) == (letter.key, letter.value, letter.headers)


def test_replay_has_the_time_of_postgresqls_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    change_topic(django_settings.KAFKA_TOPIC, message_timestamp_type="CreateTime")
    later = datetime.now(UTC) + timedelta(minutes=30)
    monkeypatch.setattr(dead_letters, "database_now", lambda: later)
    letter = add_letter(0, value=b"x")
    wait_until(lambda: replay([letter.id]).sent == 1)
    reader = make_consumer({"auto.offset.reset": "error"})
    reader.assign([TopicPartition(django_settings.KAFKA_TOPIC, number, 0) for number in range(3)])
    (sent,) = reader.consume(1, timeout=20)
    reader.close()
    assert sent.timestamp()[1] == epoch_ms(later)


@pytest.mark.usefixtures("consumer")
def test_replayed_letter_is_skipped() -> None:
    letters = letters_of(message(value=b"{"), message(value=b"["))
    ids = [letter.id for letter in letters]
    assert replay([*ids, *ids]).sent == 2
    again = replay(ids)
    assert (again.sent, again.skipped, again.failed) == (0, 2, 0)
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
def test_message_that_kafka_deleted_is_replayed() -> None:
    gone, there = letters_of(message(value=b"{"), message(value=b"["))
    trim(0, before=2)
    assert replay([gone.id, there.id]).sent == 2
    assert all_consumed()
    assert DeadLetter.objects.count() == 4


def test_letter_without_known_headers_is_not_sent() -> None:
    """As those that were stored before headers were."""
    known, unknown = add_letter(0, value=b"{"), add_letter(1, value=b"{", headers=None)
    result = replay([known.id, unknown.id])
    assert (result.sent, result.failures) == (1, [(unknown.id, NO_HEADERS)])
    unknown.refresh_from_db()
    assert unknown.replayed_at is None


def test_header_that_cannot_be_sent_fails_alone() -> None:
    letter, other = add_letter(0, headers=[[b"\xff", b"1"]]), add_letter(1, headers=[[b"a", b"\xff"]])
    result = replay([letter.id, other.id])
    assert (result.sent, result.failures) == (1, [(letter.id, UNSENDABLE_HEADERS)])


def test_thousands_are_replayed_and_discarded_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "DELETED_AT_ONCE", 1_000)
    add_letters(5_000)
    seen: list[int] = []
    # Of this process: how long Kafka and PostgreSQL take says nothing on a busy machine.
    began = time.thread_time()
    result = dead_letters.replay(select(Filter()), on_progress=lambda done: seen.append(done.done))
    assert (result.sent, result.failed, seen) == (5_000, 0, [1_000, 2_000, 3_000, 4_000, 5_000])
    assert discard(select(Filter(is_replayed=True)), on_progress=seen.append) == 5_000
    assert seen[5:] == seen[:5]
    assert time.thread_time() - began < 10


def test_batch_has_few_bytes_and_at_least_one_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "BYTES_AT_ONCE", 1_000)
    add_letters(2, value=b"v" * 2_000)
    add_letters(3, partition=1, value=b"v" * 400)
    seen: list[int] = []
    dead_letters.replay(select(Filter()), on_progress=lambda done: seen.append(done.done))
    assert seen == [1, 2, 4, 5]


@pytest.mark.usefixtures("consumer")
def test_replay_does_not_send_again_what_came_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "SENT_AT_ONCE", 2)
    letters_of(*(message(value=b"%d" % number) for number in range(6)))
    seen: list[int] = []

    def wait_for_what_comes_back(done: Replay) -> None:
        seen.append(done.done)
        wait_until(lambda: DeadLetter.objects.count() == 6 + done.sent)

    dead_letters.replay(select(Filter()), on_progress=wait_for_what_comes_back)
    assert seen == [2, 4, 6]


@pytest.mark.usefixtures("consumer")
def test_message_with_a_header_of_no_utf8_is_kept_and_cannot_be_replayed() -> None:
    """confluent-kafka cannot give the headers of such a message; the consumer goes on behind it."""
    send_with_header(b"\xff\xfe")
    wait_until(DeadLetter.objects.exists)
    (after,) = letters_of(message(1, value=b"{"))
    letter = DeadLetter.objects.exclude(id=after.id).get()
    assert (letter.offset, letter.value, letter.reason) == (0, b"{}", UNREADABLE_HEADERS)
    result = replay([letter.id, after.id])
    assert (result.sent, result.failures) == (1, [(letter.id, NO_HEADERS)])


def test_messages_read_together_with_one_whose_header_is_no_utf8_are_averaged() -> None:
    for first in (0, 3):
        send_parts(*(message(number) for number in range(first, first + 3)))
        send_with_header(b"\xff")
    with running(AverageHandler(AverageStore())):
        wait_until(lambda: (DeadLetter.objects.count(), SymbolAverage.objects.count()) == (2, 6))
    assert list(DeadLetter.objects.order_by("offset").values_list("offset", flat=True)) == [3, 7]
    assert_averages_right([event(number) for number in range(6)])


def test_letter_of_a_topic_that_is_gone_fails_and_does_not_make_it() -> None:
    letter = add_letter(0, topic="no-such-topic")
    assert replay([letter.id]).failures == [(letter.id, NO_SUCH_TOPIC)]
    assert replay([letter.id]).failures == [(letter.id, NO_SUCH_TOPIC)]


def test_letter_of_a_partition_that_is_gone_is_sent() -> None:
    assert replay([add_letter(0, partition=99).id]).sent == 1


def test_kafka_away_raises_and_notes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "ANSWER_TIMEOUT_S", 0.3)
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
    assert list(matching(Filter(limit=2, is_replayed=False))) == [new, old]
    assert list(matching(Filter(is_replayed=True))) == [other]


def test_selection_is_what_is_there_now() -> None:
    letters = [add_letter(number, replayed_at=None if number % 2 else BEGIN) for number in range(6)]
    newest = select(Filter(limit=2, is_replayed=False))
    too_many = select(Filter(limit=9))
    nothing = select(Filter(reason="no such reason"))
    add_letter(9)
    assert list(newest) == [letters[5], letters[3]]
    assert list(too_many) == letters[::-1]
    assert list(nothing) == []


def test_summary_has_the_start_of_the_key_and_the_lengths() -> None:
    add_letter(0, key=b"\xff" * 1000, value=b"v" * 5000)
    add_letter(1)
    empty, full = summaries(Filter())
    assert (full.key, full.key_bytes, full.value_bytes) == (b"\xff" * 64, 1000, 5000)
    assert (empty.key, empty.key_bytes, empty.value_bytes) == (None, None, None)
    assert {"key", "value"} <= full.letter.get_deferred_fields()


def test_discard_deletes_these_and_no_other() -> None:
    letters = [add_letter(number) for number in range(3)]
    assert discard(with_ids([letters[0].id, letters[2].id, letters[2].id])) == 2
    assert DeadLetter.objects.get() == letters[1]


def test_unknown_id_is_named() -> None:
    known, unknown = add_letter(0).id, uuid.uuid4()
    assert with_ids([known]).get().id == known
    with pytest.raises(UnknownLettersError, match=str(unknown)):
        with_ids([known, unknown])
