"""Kafka clients are made in one place, for the servers of the settings."""

from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from django.conf import settings as django_settings
from pytest_django import Settings

from prices.publishing.kafka_clients import make_admin, make_consumer, make_producer

ROOT = Path(django_settings.BASE_DIR)


def test_clients_go_to_the_servers(topic: str) -> None:
    consumer = make_consumer({})
    assert topic in consumer.list_topics(timeout=10).topics
    consumer.close()
    assert topic in make_producer({}).list_topics(timeout=10).topics
    assert topic in make_admin().list_topics(timeout=10).topics


def test_options_come_on_top(settings: Settings) -> None:
    settings.KAFKA_BOOTSTRAP_SERVERS = "127.0.0.1:1"
    with pytest.raises(KafkaException, match="No such configuration property"):
        make_producer({"no.such.option": 1})


def test_nobody_else_names_the_servers() -> None:
    folders = ("consumers", "prices", "marketdata")
    files = (file for folder in folders for file in (ROOT / folder).rglob("*.py"))
    named = {file.relative_to(ROOT).as_posix() for file in files if "bootstrap.servers" in file.read_text()}
    assert named == {"prices/publishing/kafka_clients.py"}
