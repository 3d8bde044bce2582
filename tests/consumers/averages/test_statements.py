"""Locks of symbols: few, and apart where the symbols' partitions are."""

from collections import defaultdict

import pytest
from confluent_kafka import Message, TopicPartition
from django.conf import settings
from django.db import connection

from consumers.averages.connection import connect
from consumers.averages.statements import LOCK_KEYS, lock_key, lock_symbols
from prices.publishing.kafka_clients import make_consumer
from tests.consumers.samples import Sender

SYMBOLS = [f"SIM-{number}" for number in range(3_000)]


@pytest.mark.parametrize("partitions", [2, 3, 4, 6, 8, 12, 24, 48])
def test_symbols_of_two_partitions_share_no_lock(partitions: int) -> None:
    owners = defaultdict(set)
    for symbol in SYMBOLS:
        owners[lock_key(symbol)].add(lock_key(symbol) % partitions)
    assert {len(of_key) for of_key in owners.values()} == {1}
    assert len(owners) <= LOCK_KEYS


def test_lock_goes_by_the_partition_that_kafka_chose(topic: str) -> None:
    sender = Sender()
    for symbol in SYMBOLS[:100]:
        sender.produce(key=symbol, value=b"x")
    sender.finish()
    for message in read_all(100):
        key = message.key()
        assert key is not None
        assert lock_key(key.decode()) % 3 == message.partition()


def read_all(count: int) -> list[Message]:
    consumer = make_consumer({"auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(settings.KAFKA_TOPIC, number, 0) for number in range(3)])
    messages: list[Message] = []
    while len(messages) < count:
        found = consumer.consume(count, timeout=10)
        assert found
        messages += found
    consumer.close()
    return messages


@pytest.mark.django_db(transaction=True)
def test_writers_of_many_symbols_do_not_wait_for_each_other() -> None:
    """Each with the symbols of a partition of its own, and many of them."""
    one, two = ([each for each in SYMBOLS if lock_key(each) % 3 == number] for number in (0, 1))
    assert min(len(one), len(two)) > 900
    with connect() as first, first.transaction(), connect() as second, second.transaction():
        lock_symbols(first.cursor(), one)
        lock_symbols(second.cursor(), two)
        assert len(advisory_locks()) <= LOCK_KEYS


def advisory_locks() -> list[tuple[int]]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND granted")
        return list(cursor.fetchall())
