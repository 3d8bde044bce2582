"""Kafka clients that librdkafka has ended for good, such as where Kafka refuses the user."""

import ctypes

from confluent_kafka import Consumer, Producer, cimpl


def end_for_good(client: Consumer | Producer, code: int) -> None:
    """Have a client fail for good. librdkafka has that for tests, confluent-kafka no name for it."""
    handle = ctypes.c_void_p.from_address(id(client) + object.__basicsize__)
    assert ctypes.CDLL(cimpl.__file__).rd_kafka_test_fatal_error(handle, code, b"by a test") == 0
