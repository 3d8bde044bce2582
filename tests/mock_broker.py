"""librdkafka's own broker in memory, for answers that a real one gives only at odd moments."""

import ctypes

from confluent_kafka import Producer, cimpl

# Options of a client that gets one.
MOCK_BROKER = {"test.mock.num.brokers": 1}
_PRODUCE = ctypes.c_int16(0)


def answer_with_error(producer: Producer, code: int) -> None:
    """Have the mock broker answer the producer's next messages with an error of the protocol."""
    kafka = ctypes.CDLL(cimpl.__file__)
    kafka.rd_kafka_handle_mock_cluster.restype = ctypes.c_void_p
    handle = ctypes.c_void_p.from_address(id(producer) + object.__basicsize__)
    cluster = ctypes.c_void_p(kafka.rd_kafka_handle_mock_cluster(handle))
    assert cluster, "a client without MOCK_BROKER"
    kafka.rd_kafka_mock_push_request_errors(cluster, _PRODUCE, ctypes.c_size_t(1), ctypes.c_int(code))
