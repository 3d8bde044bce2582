"""The lock of Kafka's jars."""

import re

from dev.embedded.kafka_jars import LOCK, kafka_version, read_lock
from dev.guardian import ROOT


def test_lock_is_read_whole() -> None:
    jars = read_lock()
    assert LOCK.read_text().splitlines()[1:] == [str(jar) for jar in jars]
    assert len({jar.file_name for jar in jars}) == len(jars) > 40


def test_kafka_is_that_of_docker() -> None:
    image = re.search(r"image: apache/kafka:(\S+)", (ROOT / "docker-compose.yml").read_text())
    assert image
    assert kafka_version(read_lock()) == image[1]
