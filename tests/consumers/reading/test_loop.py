"""The loop on a real Kafka: nothing is left out, and offsets come last."""

import gc
import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition
from django.conf import settings

from consumers.reading import group, pipeline, watches
from consumers.reading import loop as loop_module
from consumers.reading.group import LogTrimmedError, OffsetReset
from consumers.reading.loop import ConsumerLoop
from consumers.reading.watches import StalledError, StallWatch, TopicReplacedError, TopicWatch
from dev.pytest_services import Service, Services
from prices.heartbeat import heartbeat_age_s
from prices.publishing.kafka_clients import make_producer
from tests.consumers.running import (
    Recorder,
    RunningLoop,
    commit,
    committed,
    make_topic_anew,
    messages_left,
    numbered,
    running,
    running_loop,
    send,
    stream,
    trim,
)
from tests.ended_clients import end_for_good
from tests.logged import events_logged
from tests.waiting import wait_until

TASKS = Path("/proc/self/task")
pytestmark = pytest.mark.usefixtures("topic", "heartbeats")


def has_all(handler: Recorder, values: list[bytes]) -> Callable[[], bool]:
    return lambda: set(values) <= set(handler.values)


def has_grown_by(handler: Recorder, count: int) -> None:
    before = len(handler.values)
    wait_until(lambda: len(handler.values) >= before + count)


def test_new_group_begins_at_the_oldest_message() -> None:
    send(numbered(6000))
    handler = Recorder()
    with running(handler):
        wait_until(has_all(handler, numbered(6000)))
    assert sorted(handler.values) == sorted(numbered(6000))
    assert sum(committed().values()) == 6000
    assert handler.is_closed


def test_restarted_group_goes_on_where_it_was() -> None:
    send(numbered(10), partition=0)
    with running(Recorder()) as handler:
        wait_until(has_all(handler, numbered(10)))
    send(numbered(10, first=10), partition=0)
    send(numbered(10, first=20), partition=1)
    with running(Recorder()) as handler:
        wait_until(has_all(handler, numbered(20, first=10)))
    assert sorted(handler.values) == sorted(numbered(20, first=10))
    assert committed() == {0: 20, 1: 10, 2: -1001}


def test_offsets_are_committed_while_it_runs() -> None:
    send(numbered(10))
    with running(Recorder()):
        wait_until(lambda: sum(max(offset, 0) for offset in committed().values()) == 10)


def test_error_of_the_handler_ends_the_loop_and_commits_nothing() -> None:
    def crash(_: Sequence[Message]) -> bool:
        raise ZeroDivisionError

    send(numbered(5), partition=0)
    crashing = Recorder(crash)
    with pytest.raises(ZeroDivisionError):
        RunningLoop(crashing).start().join()
    assert crashing.is_closed
    assert committed([0]) == {0: -1001}
    with running(Recorder()) as handler:
        wait_until(has_all(handler, numbered(5)))


def test_refused_batch_is_read_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    is_away = True
    send(numbered(20))
    handler = Recorder(lambda _: is_away)
    with running(handler):
        wait_until(lambda: handler.tried)
        send(numbered(20, first=20))
        wait_until(lambda: len(handler.tried) >= 4)
        assert set(committed().values()) == {-1001}
        is_away = False
        wait_until(has_all(handler, numbered(40)))
    assert sorted(handler.values) == sorted(numbered(40))
    assert sum(committed().values()) == 40
    logged = events_logged(caplog)
    assert (logged["batch.refused"], logged["batch.accepted"]) == (1, 1)


def test_loop_turns_while_a_batch_is_refused(tmp_path: Path) -> None:
    send(numbered(5))
    handler = Recorder(lambda _: True)
    with running(handler):
        wait_until(lambda: len(handler.tried) >= 3)
        for beat in tmp_path.iterdir():
            beat.unlink()
        wait_until(lambda: heartbeat_age_s("consumer") is not None)


def test_loop_turns_while_nothing_comes(tmp_path: Path) -> None:
    with running(Recorder()):
        wait_until(lambda: heartbeat_age_s("consumer") is not None)
        for beat in tmp_path.iterdir():
            beat.unlink()
        wait_until(lambda: heartbeat_age_s("consumer") is not None)


def test_batch_that_is_too_much_at_once_goes_through_in_parts() -> None:
    send(numbered(200), partition=0)
    handler = Recorder(lambda messages: len(messages) > 50)
    with running(handler):
        wait_until(has_all(handler, numbered(200)))
    assert handler.values == numbered(200)
    assert committed([0]) == {0: 200}


def test_next_batch_is_read_while_one_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "MAX_BATCH", 10)
    may_go_on = threading.Event()

    def wait(_: Sequence[Message]) -> bool:
        return not may_go_on.wait(20)

    send(numbered(100), partition=0)
    handler = Recorder(wait)
    with running(handler):
        wait_until(lambda: len(handler.read_so_far) >= 2)
        assert len(handler.tried) == 1
        may_go_on.set()
        wait_until(has_all(handler, numbered(100)))
    assert handler.values == numbered(100)
    assert committed([0]) == {0: 100}


def test_large_messages_make_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "MAX_BATCH_BYTES", 1_000_000)
    values = [bytes([number]) * 300_000 for number in range(200)]
    send(values, partition=0)
    may_go_on = threading.Event()
    handler = Recorder(lambda _: not may_go_on.wait(20))
    with running(handler):
        wait_until(lambda: len(handler.read_so_far) >= 2)
        # What is read at once comes out of the queue of librdkafka, which holds 4 MB.
        assert sum(handler.read_so_far) < 200
        may_go_on.set()
        wait_until(has_all(handler, values))
    assert [value[0] for value in handler.values] == list(range(200))


def test_batch_that_is_being_written_ends_before_its_partitions_go() -> None:
    may_go_on = threading.Event()
    one, two = Recorder(lambda _: not may_go_on.wait(20)), Recorder()
    send(numbered(30))
    with running(one):
        wait_until(lambda: one.tried)
        with running(two):
            # It asks for its share, which it gets only after the write.
            send(numbered(30, first=30))
            may_go_on.set()
            wait_until(lambda: {*numbered(60)} <= {*one.values, *two.values})
    assert Counter(one.values + two.values) == Counter(numbered(60))


def test_stop_while_a_batch_is_refused_leaves_it_for_the_next() -> None:
    send(numbered(5), partition=0)
    with running(Recorder(lambda _: True)) as refusing:
        wait_until(lambda: refusing.tried)
    with running(Recorder()) as handler:
        wait_until(has_all(handler, numbered(5)))


def test_partitions_are_shared_and_taken_back_in_the_middle_of_a_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was handled is committed before a partition is given up: nothing comes twice."""
    # On a busy machine Kafka may need more time for the last commit than a process has that ends.
    monkeypatch.setattr(loop_module, "CLOSE_S", 15.0)
    one, two = Recorder(), Recorder()
    with stream() as sent, running_loop(one) as loop:
        wait_until(lambda: one.values)
        with running(two):
            wait_until(lambda: two.values)
            has_grown_by(two, 100)
        # Kafka refuses what is committed in the middle of a rebalance, and who leaves does not repeat it.
        wait_until(lambda: len(loop.consumer.assignment()) == 3)
        has_grown_by(one, 100)
    with running(one):
        wait_until(lambda: set(sent) <= {*one.values, *two.values})
    assert Counter(one.values + two.values) == Counter(sent)
    assert sum(committed().values()) == len(sent)


def test_partitions_move_while_a_batch_is_refused() -> None:
    """The one that cannot store gives up what it holds; the other gets it, and both go on later."""
    values = numbered(300)
    is_away = True
    one, two = Recorder(lambda _: is_away), Recorder()
    send(values[:200])
    with running(one):
        wait_until(lambda: one.tried)
        with running(two):
            wait_until(lambda: two.values)
            is_away = False
            wait_until(lambda: set(values[:200]) <= {*one.values, *two.values})
        send(values[200:])
        wait_until(lambda: set(values) <= {*one.values, *two.values})
    assert sum(committed().values()) == 300


def trim_what_is_next() -> None:
    """Leave the group at an offset that is gone in partition 0, at one that is there in 1, at none in 2."""
    for partition in range(3):
        send(numbered(10, first=10 * partition), partition=partition)
    commit(5, partition=0)
    commit(4, partition=1)
    trim(0, before=8)


def test_trimmed_log_ends_the_loop_and_says_what_to_do(topic: str) -> None:
    trim_what_is_next()
    handler = Recorder()
    with pytest.raises(LogTrimmedError) as caught:
        RunningLoop(handler).start().join()
    text = str(caught.value)
    assert f"offset 5 of {topic}, partition 0, but Kafka has only offsets 8 to 10" in text
    for step in ("consume_prices --from earliest", "--from latest", "rebuild_averages", "verify_averages"):
        assert step in text
    assert committed([0]) == {0: 5}


def test_from_earliest_begins_gone_partitions_at_their_oldest_message() -> None:
    trim_what_is_next()
    expected = [*numbered(2, first=8), *numbered(6, first=14), *numbered(10, first=20)]
    with running(Recorder(), reset=OffsetReset.EARLIEST) as handler:
        wait_until(has_all(handler, expected))
    assert sorted(handler.values) == sorted(expected)
    assert committed() == {0: 10, 1: 10, 2: 10}


def test_from_latest_begins_gone_partitions_at_their_end_and_no_other() -> None:
    trim_what_is_next()
    expected = [*numbered(6, first=14), *numbered(10, first=20), b"new"]
    with running(Recorder(), reset=OffsetReset.LATEST) as handler:
        wait_until(lambda: committed([0]) == {0: 10})
        send([b"new"], partition=0)
        wait_until(has_all(handler, expected))
    assert sorted(handler.values) == sorted(expected)
    assert committed() == {0: 11, 1: 10, 2: 10}


@pytest.mark.parametrize("reset", OffsetReset)
def test_partition_begun_anew_stays_so_though_nothing_comes(reset: OffsetReset) -> None:
    send(numbered(5), partition=0)
    commit(2, partition=0)
    trim(0, before=5)
    with running(Recorder(), reset=reset):
        wait_until(lambda: committed([0]) == {0: 5})
    with running(Recorder()) as handler:
        send([b"new"], partition=0)
        wait_until(has_all(handler, [b"new"]))


def test_offset_beyond_the_end_is_gone_too() -> None:
    send(numbered(5), partition=0)
    commit(9, partition=0)
    with running(Recorder(), reset=OffsetReset.EARLIEST) as handler:
        wait_until(has_all(handler, numbered(5)))


def test_topic_made_anew_under_a_running_loop_ends_it_and_is_not_gone_on_in() -> None:
    """The new topic has more messages than were read of the old one: offsets alone would not tell."""
    send(numbered(10), partition=0)
    handler = Recorder()
    loop = RunningLoop(handler).start()
    wait_until(has_all(handler, numbered(10)))
    make_topic_anew()
    send(numbered(20, first=100), partition=0)
    with pytest.raises(TopicReplacedError, match="was deleted and made anew") as caught:
        loop.join()
    assert "consume_prices --from earliest" in str(caught.value)
    with running(Recorder(), reset=OffsetReset.EARLIEST) as handler:
        wait_until(has_all(handler, numbered(20, first=100)))
    assert committed([0]) == {0: 20}


def test_offset_of_a_former_topic_ends_the_loop_at_its_start() -> None:
    send(numbered(10), partition=0)
    commit(5, partition=0, metadata="topic=former")
    handler = Recorder()
    with pytest.raises(TopicReplacedError, match="its id was former"):
        RunningLoop(handler).start().join()
    assert handler.values == []
    with running(handler, reset=OffsetReset.EARLIEST):
        wait_until(has_all(handler, numbered(10)))
    with running(Recorder()) as handler:
        send([b"new"], partition=0)
        wait_until(has_all(handler, [b"new"]))
    assert handler.values == [b"new"]


def test_offset_with_the_note_of_another_program_is_gone_on_from() -> None:
    send(numbered(3), partition=0)
    commit(2, partition=0, metadata="set by hand")
    with running(Recorder()) as handler:
        wait_until(has_all(handler, numbered(1, first=2)))
    assert handler.values == numbered(1, first=2)


@contextmanager
def stopped(service: Service) -> Iterator[None]:
    service.stop()
    try:
        yield
    finally:
        service.start()


def test_kafka_away_is_waited_for_and_told_once(
    services: Services, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """By a loop that ran before, and by one that starts while Kafka is away."""
    caplog.set_level(logging.INFO)
    one, two = Recorder(), Recorder()
    send(numbered(5))
    with ExitStack() as loops:
        loops.enter_context(running(one))
        wait_until(has_all(one, numbered(5)))
        with stopped(services.kafka):
            loops.enter_context(running(two))
            wait_until(lambda: events_logged(caplog)["kafka.away"])
            for beat in tmp_path.iterdir():
                beat.unlink()
            wait_until(lambda: heartbeat_age_s("consumer") is not None)
        send(numbered(5, first=5))
        wait_until(lambda: {*numbered(10)} <= {*one.values, *two.values})
        wait_until(lambda: sum(max(offset, 0) for offset in committed().values()) == 10)
    assert events_logged(caplog)["kafka.away"] <= 2


def test_consumer_that_failed_for_good_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    """As where Kafka refuses the group to a consumer of KIP-848, and allows it a moment later."""
    send(numbered(5))
    handler = Recorder()
    loop = RunningLoop(handler).start()
    try:
        wait_until(has_all(handler, numbered(5)))
        end_for_good(loop.consumer, KafkaError.GROUP_AUTHORIZATION_FAILED)
        wait_until(lambda: events_logged(caplog)["kafka.away"] == 1)
        send(numbered(5, first=5))
        # Commits are what the ended one gets no answer to.
        wait_until(lambda: sum(max(offset, 0) for offset in committed().values()) == 10)
        assert set(handler.values) == {*numbered(10)}
    finally:
        loop.stop()
    assert "by a test" in caplog.text


@pytest.mark.skipif(not TASKS.is_dir(), reason="this system does not list threads by name")
def test_consumer_that_failed_for_good_leaves_no_thread() -> None:
    send(numbered(5))
    handler = Recorder()
    loop = RunningLoop(handler).start()
    try:
        wait_until(has_all(handler, numbered(5)))
        before = librdkafka_clients()
        end_for_good(loop.consumer, KafkaError.GROUP_AUTHORIZATION_FAILED)
        send(numbered(5, first=5))
        wait_until(has_all(handler, numbered(10)))
        wait_until(lambda: librdkafka_clients() <= before)
    finally:
        loop.stop()


def librdkafka_clients() -> int:
    """Return how many clients this process has: each has one thread of this name."""
    gc.collect()
    names = []
    for task in TASKS.iterdir():
        with suppress(FileNotFoundError):
            names.append((task / "comm").read_text().strip())
    return names.count("rdk:main")


def send_in_transaction(values: list[bytes], *, partition: int, commits: bool = True) -> None:
    """Send values in a transaction, whose end is a mark after them that takes an offset, too."""
    producer = make_producer({"transactional.id": uuid.uuid4().hex})
    producer.init_transactions(20)
    producer.begin_transaction()
    for value in values:
        producer.produce(settings.KAFKA_TOPIC, value=value, partition=partition)
    if commits:
        producer.commit_transaction(20)
    else:
        producer.flush(20)
        producer.abort_transaction(20)


def test_marks_of_transactions_are_passed() -> None:
    send_in_transaction(numbered(3), partition=0)
    send_in_transaction(numbered(3, first=10), partition=1, commits=False)
    with running(Recorder()) as handler:
        wait_until(lambda: committed() == {0: 4, 1: 4, 2: -1001})
        assert messages_left(wait_s=0) == 0
        send_in_transaction(numbered(2, first=3), partition=0)
        wait_until(lambda: committed([0]) == {0: 7})
        send(numbered(1, first=5), partition=0)
        wait_until(lambda: committed([0]) == {0: 8})
    assert handler.values == numbered(6)


def test_mark_is_passed_after_the_messages_before_it_are_stored() -> None:
    is_away = True
    send_in_transaction(numbered(3), partition=0)
    with running(Recorder(lambda _: is_away)) as handler:
        wait_until(lambda: len(handler.tried) >= 3)
        assert committed([0]) == {0: -1001}
        is_away = False
        wait_until(lambda: committed([0]) == {0: 4})
    assert handler.values == numbered(3)


@pytest.fixture
def short_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "STALL_S", 0.5)
    monkeypatch.setattr(watches, "ASK_INTERVAL_S", 0.1)


@pytest.mark.usefixtures("short_stalls")
def test_partition_of_which_nothing_comes_is_sought_and_then_ends_the_loop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As where librdkafka has lost track of it, which a pause behind the loop's back plays."""
    send(numbered(3), partition=0)
    handler = Recorder()
    loop = RunningLoop(handler).start()
    wait_until(has_all(handler, numbered(3)))
    loop.consumer.pause([TopicPartition(settings.KAFKA_TOPIC, 0)])
    send(numbered(3, first=3), partition=0)
    with pytest.raises(StalledError, match="partition 0, from offset 3 on"):
        loop.join()
    assert events_logged(caplog)["partition.stalled"] == 1


@pytest.mark.usefixtures("short_stalls")
def test_partition_that_goes_on_after_a_seek_is_well(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where librdkafka has lost track of it: what comes is dropped until the partition is sought."""
    # What is between the seek and the end is also what this test has for going on.
    monkeypatch.setattr(watches, "STALL_S", 4.0)
    is_lost = threading.Event()
    look, take = StallWatch.look, ConsumerLoop._take

    def look_and_note(watch: StallWatch, positions: Mapping[int, int]) -> list[int]:
        stalled = look(watch, positions)
        if stalled:
            is_lost.clear()
        return stalled

    def take_or_lose(loop: ConsumerLoop[Any], messages: Sequence[Message]) -> bool:
        return take(loop, [] if is_lost.is_set() else messages)

    monkeypatch.setattr(StallWatch, "look", look_and_note)
    monkeypatch.setattr(ConsumerLoop, "_take", take_or_lose)
    send(numbered(3), partition=0)
    with running(Recorder()) as handler:
        wait_until(has_all(handler, numbered(3)))
        is_lost.set()
        send(numbered(3, first=3), partition=0)
        wait_until(has_all(handler, numbered(6)))
    assert events_logged(caplog)["partition.stalled"] == 1
    assert handler.values == numbered(6)


def test_unread_messages_that_are_gone_are_recovered_before_the_first_write(
    caplog: pytest.LogCaptureFixture,
) -> None:
    send(numbered(10), partition=0)
    trim(0, before=8)
    with running(Recorder()) as handler:
        wait_until(lambda: committed([0]) == {0: 10})
    assert len(handler.recoveries) == 1
    assert events_logged(caplog)["log.trimmed"] == 1
    with running(Recorder()) as handler:
        send(numbered(1), partition=0)
        wait_until(has_all(handler, numbered(1)))
    assert handler.recoveries == []


def test_partitions_pass_to_others_during_a_recovery() -> None:
    """It may take longer than Kafka waits for a member, and one that was put out would begin it anew."""
    may_end = threading.Event()

    class Slow(Recorder):
        def recover(self, *, before: datetime, **_: Any) -> int | None:
            self.recoveries.append(before)
            may_end.wait(60)
            return 0

    send(numbered(10), partition=0)
    trim(0, before=8)
    for partition in (1, 2):
        send(numbered(1, first=100 + partition), partition=partition)
    slow = Slow()
    with running(slow):
        wait_until(lambda: slow.recoveries)
        with running(Recorder()) as other:
            wait_until(lambda: other.values)
            may_end.set()
            wait_until(lambda: len({*slow.values, *other.values}) == 4)
    assert sorted({*slow.values, *other.values}) == sorted([*numbered(2, first=8), *numbered(2, first=101)])


def test_recovery_that_hangs_is_seen_by_the_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "RECOVERY_OVERDUE_S", 1.0)
    asks, may_end = threading.Event(), threading.Event()

    class Hanging(Recorder):
        def recover(self, *, before: datetime, is_stopped: Callable[[], bool], **_: Any) -> int | None:
            self.recoveries.append(before)
            while not may_end.wait(0.05):
                if asks.is_set():
                    is_stopped()
            return 0

    def beats() -> bool:
        for beat in tmp_path.iterdir():
            beat.unlink()
        return any(heartbeat_age_s("consumer") is not None for _ in range(20) if not may_end.wait(0.1))

    send(numbered(10), partition=0)
    trim(0, before=8)
    handler = Hanging()
    with running(handler):
        wait_until(lambda: handler.recoveries)
        wait_until(lambda: not beats(), what="it hangs, and the heartbeat says so")
        asks.set()
        wait_until(beats, what="it goes on")
        may_end.set()
        wait_until(has_all(handler, numbered(2, first=8)))


def test_partition_without_a_message_is_recovered_once() -> None:
    send(numbered(3), partition=2)
    trim(2, before=3)
    with running(Recorder()) as handler:
        wait_until(lambda: committed([2]) == {2: 3})
    assert len(handler.recoveries) == 1


def test_unread_messages_that_nobody_knows_end_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recorder, "recover", lambda *_, **__: None)
    send(numbered(10), partition=0)
    trim(0, before=8)
    with pytest.raises(LogTrimmedError, match="0 at 8") as caught:
        RunningLoop(Recorder()).start().join()
    assert "consume_prices --from earliest" in str(caught.value)
    assert committed([0]) == {0: -1001}
    with running(Recorder(), reset=OffsetReset.EARLIEST) as handler:
        wait_until(has_all(handler, numbered(2, first=8)))


@pytest.mark.parametrize(
    ("code", "ends"),
    [(KafkaError.UNKNOWN_TOPIC_OR_PART, False), (KafkaError.TOPIC_AUTHORIZATION_FAILED, True)],
)
def test_answers_that_come_at_once_do_not_make_a_hot_loop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, ends: bool
) -> None:
    """The heartbeat stays as it is: the loop goes nowhere meanwhile."""
    asked: list[float] = []

    def refuse(_: TopicWatch) -> str:
        asked.append(time.monotonic())
        for beat in tmp_path.iterdir():
            beat.unlink()
        raise KafkaException(KafkaError(code))

    monkeypatch.setattr(TopicWatch, "learn", refuse)
    monkeypatch.setattr("consumers.reading.membership.POSITIONS_TIMEOUT_S", 1.0)
    loop = RunningLoop(Recorder()).start()
    with pytest.raises(KafkaException):
        loop.join()
    assert len(asked) <= (1 if ends else 7)
    assert not list(tmp_path.iterdir())
