"""Run librdkafka's in-memory broker until SIGTERM: `python memory_broker.py ADDRESS_FILE TOPIC`."""

import signal
import sys
from pathlib import Path

from confluent_kafka import Producer


def serve(address_file: Path, *, topic: str) -> None:
    """Write the broker's address into the file once it answers; return at SIGTERM."""
    producer = Producer({"test.mock.num.brokers": 1})
    # To ask for a topic is the one way to make it: the broker does not know CreateTopics.
    brokers = producer.list_topics(topic, timeout=30).brokers.values()
    draft = address_file.with_suffix(".draft")
    draft.write_text(",".join(f"{broker.host}:{broker.port}" for broker in brokers))
    draft.replace(address_file)
    signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    # Blocked before librdkafka makes its threads, so that the signal waits for sigwait.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    serve(Path(sys.argv[1]), topic=sys.argv[2])
