"""A Kafka that shuts down says that its cluster has no brokers: what lasts longer must find it again.

librdkafka may then forget the only broker that it knows, and asks nobody from then on.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Protocol

import pytest
from confluent_kafka import KafkaException
from pytest_django import Settings

from consumers.reading import watches
from consumers.reading.watches import StallWatch, TopicWatch
from marketdata import health
from prices.publishing import publisher as publishing
from prices.publishing.kafka_clients import LastingClient, make_admin, make_producer
from prices.publishing.publisher import forget_publisher, publisher
from tests.consumers.running import send
from tests.kafka_proxy import KafkaProxy
from tests.prices.publishing.points import make_points
from tests.waiting import wait_until


class Client(Protocol):
    """What each client of librdkafka can be asked for."""

    def list_topics(self, *, timeout: float) -> object:
        """Return the topics, by the broker that the client takes."""


@pytest.fixture
def proxy(topic: str, settings: Settings) -> Iterator[KafkaProxy]:
    """Yield a proxy by which this test's clients reach Kafka."""
    kafka = settings.KAFKA_BOOTSTRAP_SERVERS
    with KafkaProxy(kafka) as running:
        settings.KAFKA_BOOTSTRAP_SERVERS = running.address
        yield running
    settings.KAFKA_BOOTSTRAP_SERVERS = kafka
    forget_publisher()
    health.forget_clients()


def is_answered(client: Client) -> bool:
    try:
        client.list_topics(timeout=1)
    except KafkaException:
        return False
    return True


def lost(make: Callable[[], Client], proxy: KafkaProxy) -> Client:
    """Return a client that knows no brokers any more: one of a few comes to that, by a race in librdkafka."""
    made: list[Client] = []

    def is_last_one_lost() -> bool:
        made.append(make())
        assert is_answered(made[-1])
        proxy.hides_brokers = True
        is_answered(made[-1])
        proxy.hides_brokers = False
        return not any(is_answered(made[-1]) for _ in range(2))

    # A client has a length, which is 0.
    wait_until(is_last_one_lost)
    return made[-1]


def test_librdkafka_forgets_brokers_that_are_not_named(proxy: KafkaProxy) -> None:
    """Once it does not, all that makes clients anew can go."""
    client = lost(make_admin, proxy)
    assert is_answered(make_admin())
    assert not is_answered(client)


def test_client_gives_way_after_two_silences() -> None:
    clients = LastingClient(object)
    first = clients.get()
    for is_answered in (False, True, False):
        clients.note(first, asked_at=time.monotonic(), is_answered=is_answered)
        assert clients.get() is first
    # Asked beside the one before: one silence.
    clients.note(first, asked_at=time.monotonic() - 1, is_answered=False)
    assert clients.get() is first
    clients.note(first, asked_at=time.monotonic(), is_answered=False)
    second = clients.get()
    assert second is not first
    for _ in range(2):
        clients.note(first, asked_at=time.monotonic(), is_answered=False)
    assert clients.get() is second
    clients.drop(first)
    assert clients.get() is second
    clients.drop(second)
    assert clients.get() is not second


def test_health_check_finds_kafka_again(proxy: KafkaProxy) -> None:
    health.forget_clients()
    health._kafka()._client = lost(make_admin, proxy)  # type: ignore[assignment]

    def is_well() -> bool:
        with suppress(health.PartError):
            health.PARTS["kafka"]()
            return True
        return False

    assert not is_well()
    wait_until(is_well)


@pytest.mark.django_db
def test_publisher_finds_kafka_again(proxy: KafkaProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "PAUSE_AFTER_FAILURE_S", 0.1)
    forget_publisher()
    options = {"message.timeout.ms": 1_000}
    publisher()._producers._client = lost(lambda: make_producer(options), proxy)  # type: ignore[assignment]
    (point,) = make_points(1)
    assert not publisher().publish([point], polls={}).confirmed
    wait_until(lambda: publisher().publish([point], polls={}).confirmed)


def test_topic_watch_finds_kafka_again(proxy: KafkaProxy) -> None:
    watch = TopicWatch()
    watch._clients._client = lost(make_admin, proxy)  # type: ignore[assignment]

    def is_watch_answered() -> bool:
        watch.look()
        return watch.is_answered

    wait_until(is_watch_answered)


def test_stall_watch_finds_kafka_again(proxy: KafkaProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "ASK_INTERVAL_S", 0.1)
    monkeypatch.setattr(watches, "STALL_S", 0.1)
    watch = StallWatch()
    watch._clients._client = lost(make_admin, proxy)  # type: ignore[assignment]
    send([b"1"], partition=0)
    watch.follow([0])
    assert wait_until(lambda: watch.look({0: 0})) == [0]


def test_watches_outlast_settings_that_make_no_client(settings: Settings) -> None:
    """As where the file of a certificate is being replaced."""
    settings.KAFKA_SECURITY_PROTOCOL, settings.KAFKA_CA_FILE = "SSL", "/nowhere/ca.pem"
    with pytest.raises(KafkaException):
        make_admin()
    topic_watch = TopicWatch()
    topic_watch.is_answered = True
    topic_watch.look()
    assert not topic_watch.is_answered
    assert StallWatch().look({0: 0}) == []
