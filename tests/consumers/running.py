"""Loops in threads, and a handler that remembers what it was given."""

import ctypes
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any, Self, TypeVar

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition, cimpl
from django.conf import settings

from consumers.reading.group import OffsetReset
from consumers.reading.lag import wait_until_consumed
from consumers.reading.loop import ConsumerLoop
from consumers.reading.membership import MembershipWatch
from consumers.reading.pipeline import BatchHandler, RetryLaterError
from prices.publishing.kafka_clients import make_admin, make_consumer
from prices.publishing.topic import ensure_topic
from tests.consumers.samples import Sender
from tests.waiting import wait_until

Handler = TypeVar("Handler", bound=BatchHandler[Any])


class Messages(list[Message]):
    """Messages as a batch of themselves."""

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self))


class Recorder:
    """A handler that keeps values in memory; `refuse` is asked before each batch."""

    def __init__(self, refuse: Callable[[Sequence[Message]], bool] = lambda _: False) -> None:
        self.refuse = refuse
        self.batches: list[list[bytes]] = []
        self.tried: list[int] = []
        self.read_so_far: list[int] = []
        self.forgets = 0
        self.recoveries: list[datetime] = []
        self.is_closed = False
        self.on_write: Callable[[Sequence[Message]], None] = lambda _: None

    def read(self, messages: Sequence[Message]) -> Messages:
        self.read_so_far.append(len(messages))
        return Messages(messages)

    def join(self, batches: Sequence[Messages]) -> Messages:
        return Messages(message for batch in batches for message in batch)

    def prepare(self, messages: Messages, *, speculative: bool) -> Callable[[], None]:
        return partial(self._write, messages)

    def _write(self, messages: Messages) -> None:
        self.tried.append(len(messages))
        if self.refuse(messages):
            raise RetryLaterError("refused by the test")
        self.on_write(messages)
        self.batches.append([message.value() or b"" for message in messages])

    def recover(self, *, before: datetime, is_first: bool, is_stopped: Callable[[], bool]) -> int | None:
        if is_first:
            return None
        self.recoveries.append(before)
        return 0

    def invalidate(self) -> None:
        self.forgets += 1

    def close(self) -> None:
        self.is_closed = True

    @property
    def values(self) -> list[bytes]:
        return [value for batch in self.batches for value in batch]


class RunningLoop:
    """A loop in a thread of its own."""

    def __init__(self, handler: BatchHandler[Any], *, reset: OffsetReset | None = None) -> None:
        self.error: BaseException | None = None
        self._loop = ConsumerLoop(handler, reset=reset)
        self._thread = threading.Thread(target=self._run)

    @property
    def consumer(self) -> Consumer:
        """The consumer that the loop reads by."""
        return self._loop._member.consumer

    @property
    def membership(self) -> MembershipWatch:
        """What the loop knows of its membership."""
        return self._loop._member.watch

    def start(self) -> Self:
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop it and raise what the loop raised."""
        self._loop.stop()
        self.join()

    def join(self) -> None:
        """Wait until it has ended by itself, and raise what it raised."""
        self._thread.join(20)
        has_ended = not self._thread.is_alive()
        # A test that fails must not leave it running.
        self._loop.stop()
        self._thread.join(20)
        assert has_ended
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            self._loop.run()
        except Exception as error:  # noqa: BLE001 - raised again in the test's own thread
            self.error = error


@contextmanager
def running_loop(handler: BatchHandler[Any], *, reset: OffsetReset | None = None) -> Iterator[RunningLoop]:
    """Run a loop for the block; stop it afterwards."""
    loop = RunningLoop(handler, reset=reset).start()
    try:
        yield loop
    finally:
        loop.stop()


@contextmanager
def running(handler: Handler, *, reset: OffsetReset | None = None) -> Iterator[Handler]:
    """Run a loop with this handler for the block; stop it afterwards."""
    with running_loop(handler, reset=reset):
        yield handler


def messages_left(*, wait_s: float) -> int:
    """Return how many of the messages that the topic holds now the group has yet to consume.

    Waits and raises as `wait_until_consumed` does.
    """
    return sum(lag.messages for lag in wait_until_consumed(wait_s=wait_s))


def send(values: Iterable[bytes], *, partition: int | None = None) -> None:
    """Send values, spread over the partitions or to one, and wait until Kafka has them."""
    sender = Sender()
    for value in values:
        if partition is None:
            sender.produce(key=uuid.uuid4().hex, value=value)
        else:
            sender.produce(value=value, partition=partition)
    sender.finish()


def numbered(count: int, *, first: int = 0) -> list[bytes]:
    return [str(number).encode() for number in range(first, first + count)]


@contextmanager
def stream() -> Iterator[list[bytes]]:
    """Send messages for as long as the block runs; the list is complete after it."""
    sent: list[bytes] = []
    is_over = threading.Event()

    def go_on() -> None:
        while not is_over.wait(0.005):
            values = numbered(5, first=len(sent))
            send(values)
            sent.extend(values)

    sender = threading.Thread(target=go_on)
    sender.start()
    try:
        yield sent
    finally:
        is_over.set()
        sender.join(20)


def send_parts(*messages: Message, partition: int = 0) -> None:
    """Send the keys, values and headers of these messages to one partition, and wait until Kafka has them."""
    sender = Sender()
    for each in messages:
        sender.produce(key=each.key(), value=each.value(), headers=each.headers(), partition=partition)
    sender.finish()


def send_with_header(name: bytes, *, partition: int = 0) -> None:
    """Send a message that has a header of any name, and wait until Kafka has it.

    By librdkafka itself: confluent-kafka writes UTF-8 only, but other clients may not.
    """
    kafka, text = ctypes.CDLL(cimpl.__file__), ctypes.c_char_p
    kafka.rd_kafka_conf_new.restype = kafka.rd_kafka_new.restype = ctypes.c_void_p
    configuration = ctypes.c_void_p(kafka.rd_kafka_conf_new())
    servers = settings.KAFKA_BOOTSTRAP_SERVERS.encode()
    assert kafka.rd_kafka_conf_set(configuration, b"bootstrap.servers", servers, None, 0) == 0
    producer = ctypes.c_void_p(kafka.rd_kafka_new(0, configuration, None, 0))
    # A number says what follows it: 1 a topic, 3 a partition, 4 a value, 9 a header, 0 nothing.
    parts = (1, text(settings.KAFKA_TOPIC.encode()), 3, partition, 4, text(b"{}"), ctypes.c_size_t(2))
    header = (9, text(name), text(b"1"), ctypes.c_ssize_t(1))
    # With flag 2 (after a 7) the value is copied.
    assert kafka.rd_kafka_producev(producer, *parts, 7, 2, *header, 0) == 0
    assert kafka.rd_kafka_flush(producer, 10_000) == 0
    kafka.rd_kafka_destroy(producer)


def committed(partitions: Iterable[int] = range(3)) -> dict[int, int]:
    """Return the group's committed offset of each partition; -1001 where there is none."""
    positions = [TopicPartition(settings.KAFKA_TOPIC, number) for number in partitions]
    with _bystander() as consumer:
        answer = consumer.committed(positions, timeout=5)
    return {position.partition: position.offset for position in answer}


def commit(offset: int, *, partition: int, metadata: str = "") -> None:
    """Commit an offset for the group, which must have no member."""
    with _bystander() as consumer:
        position = TopicPartition(settings.KAFKA_TOPIC, partition, offset, metadata=metadata)
        consumer.commit(offsets=[position], asynchronous=False)


def trim(partition: int, *, before: int) -> None:
    """Delete a partition's messages before an offset, as the topic's retention would."""
    admin = make_admin()
    for deleted in admin.delete_records([TopicPartition(settings.KAFKA_TOPIC, partition, before)]).values():
        deleted.result(10)


def make_topic_anew() -> None:
    """Delete the topic, with all messages, and make one of the same name."""
    admin = make_admin()
    admin.delete_topics([settings.KAFKA_TOPIC])[settings.KAFKA_TOPIC].result(10)
    # Its name is free a moment later.
    wait_until(topic_was_made)


def topic_was_made() -> bool:
    """Try to make the topic; return whether it was."""
    try:
        return ensure_topic(make_admin())
    except KafkaException:
        return False


@contextmanager
def _bystander() -> Iterator[Consumer]:
    consumer = make_consumer({})
    try:
        yield consumer
    finally:
        consumer.close()
