"""What Kafka's ACLs forbid is said, and all goes on that may: by a broker that asks for leave."""

import logging
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import TypeVar

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # not in __all__
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)
from django.core.management import CommandError, call_command
from pytest_django import Settings

from consumers.management.commands import consume_prices
from consumers.reading.loop import ConsumerLoop
from dev.embedded.kafka import ApacheKafka
from dev.embedded.parts import Paths
from dev.guardian import Guardian
from marketdata.status import _read_lag
from prices.publishing import topic_settings
from prices.publishing.kafka_clients import make_admin
from prices.publishing.topic import ensure_topic
from prices.publishing.topic_settings import look_at_topic
from tests.consumers.running import Recorder, running, send
from tests.logged import events_logged
from tests.waiting import wait_until

TOPIC = "guarded"
CLUSTER = "kafka-cluster"
NOT_LOOKED_AT = "the settings of guarded may not be read, so nobody looked at them"
Acl = TypeVar("Acl", AclBinding, AclBindingFilter)


class GuardedKafka(ApacheKafka):
    """It asks for leave where there is any ACL of what is asked for."""

    def _settings(self) -> dict[str, str]:
        return {
            **super()._settings(),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "true",
        }


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("guarded")
    guardian = Guardian()
    kafka = GuardedKafka(folder, logs=folder, guardian=guardian, libs=Paths(folder).libs, say=lambda _: None)
    kafka.start()
    yield kafka.address
    kafka.stop()
    guardian.close()


@pytest.fixture
def guarded(address: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.KAFKA_BOOTSTRAP_SERVERS = address
    settings.KAFKA_TOPIC = settings.KAFKA_CONSUMER_GROUP = TOPIC
    settings.KAFKA_PARTITIONS = 3
    # A busy machine takes long for a first connection.
    monkeypatch.setattr(topic_settings, "ANSWER_TIMEOUT_S", 20.0)


def acl(
    kind: type[Acl],
    operation: AclOperation,
    resource: ResourceType,
    name: str,
    *,
    permission: AclPermissionType = AclPermissionType.DENY,
) -> Acl:
    return kind(resource, name, ResourcePatternType.LITERAL, "User:ANONYMOUS", "*", operation, permission)


class Forbid:
    """Forbids what it is called with, of a topic and a cluster that allow all else."""

    def __init__(self) -> None:
        self._admin = make_admin()
        self._given: list[AclBindingFilter] = []
        allowed = [
            acl(AclBinding, AclOperation.ALL, resource, name, permission=AclPermissionType.ALLOW)
            for resource, name in ((ResourceType.TOPIC, TOPIC), (ResourceType.BROKER, CLUSTER))
        ]
        for each in self._admin.create_acls(allowed).values():
            each.result(10)

    def __call__(
        self, operation: AclOperation, resource: ResourceType = ResourceType.TOPIC, name: str = TOPIC
    ) -> None:
        self._given.append(acl(AclBindingFilter, operation, resource, name))
        for each in self._admin.create_acls([acl(AclBinding, operation, resource, name)]).values():
            each.result(10)

    def allow(self) -> None:
        given, self._given = self._given, []
        for each in self._admin.delete_acls(given).values() if given else ():
            each.result(10)


@pytest.fixture
def forbid(guarded: None) -> Iterator[Forbid]:
    made = Forbid()
    # What the test before was forbidden, the broker allows again only after a moment.
    wait_until(topic_is_made, what="the topic may be made and seen")
    yield made
    made.allow()


def topic_is_made() -> bool:
    try:
        ensure_topic(make_admin())
        return not look_at_topic(make_admin()).odd
    except KafkaException:
        return False


def called(command: str) -> str:
    out, err = StringIO(), StringIO()
    call_command(command, stdout=out, stderr=err)
    return out.getvalue() + err.getvalue()


def test_settings_that_may_not_be_read_are_named_and_all_goes_on(
    forbid: Forbid, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ConsumerLoop, "run", lambda _: None)
    monkeypatch.setattr(consume_prices, "_tune_interpreter", lambda: None)
    forbid(AclOperation.DESCRIBE_CONFIGS)
    wait_until(lambda: look_at_topic(make_admin()).odd)
    assert called("ensure_topic") == f"guarded: exists\n{NOT_LOOKED_AT}\n"
    with caplog.at_level(logging.WARNING):
        call_command("consume_prices")
    assert NOT_LOOKED_AT in caplog.text
    problems: list[str] = []
    assert _read_lag(problems) is not None
    assert problems == [f"topic: {NOT_LOOKED_AT}"]


def test_topic_that_may_not_be_seen_or_made_is_named(forbid: Forbid) -> None:
    forbid(AclOperation.DESCRIBE)
    forbid(AclOperation.CREATE)
    forbid(AclOperation.CREATE, ResourceType.BROKER, CLUSTER)
    wait_until(lambda: TOPIC not in make_admin().list_topics(timeout=5).topics)
    with pytest.raises(CommandError, match="TOPIC_AUTHORIZATION_FAILED"):
        call_command("ensure_topic")
    problems: list[str] = []
    assert _read_lag(problems) is None
    assert "uthorization failed" in problems[-1]


def test_prices_that_may_not_be_read_are_waited_for(
    forbid: Forbid, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HEARTBEAT_DIR", str(tmp_path))
    forbid(AclOperation.READ)
    with caplog.at_level(logging.WARNING):
        send([b"1"], partition=0)
        with running(Recorder()) as handler:
            wait_until(lambda: events_logged(caplog)["kafka.away"])
            assert "uthorization failed" in caplog.text
            forbid.allow()
            wait_until(lambda: handler.values == [b"1"])
