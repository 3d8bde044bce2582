"""A Kafka that asks for a user or a certificate, over TLS, as those that are rented do."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._scram import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion
from django.core.management import CommandError, call_command
from pytest_django import Settings

from consumers.reading.lag import read_lag
from dev.embedded.kafka import ApacheKafka
from dev.embedded.parts import Paths
from dev.embedded.ports import HOST, free_port
from dev.guardian import Guardian
from marketdata import health
from prices.publishing import topic as topics
from prices.publishing.kafka_clients import make_admin, make_producer
from prices.publishing.topic import ensure_topic
from tests.consumers.running import Recorder, running
from tests.providers.company_network import Certificates, make_certificates
from tests.waiting import wait_until

USER, PASSWORD = "prices", '$ecret, with "quotes"'
TOPIC = "secured"
WRONG = "SASL authentication error: Authentication failed: Invalid username or password"


@dataclass(frozen=True)
class Server:
    """Two addresses of one broker: one takes users, the other certificates of the company's authority."""

    of_users: str
    of_certificates: str
    certificates: Certificates


class SecuredKafka(ApacheKafka):
    """It takes users at its own port."""

    def __init__(self, folder: Path, guardian: Guardian, certificates: Certificates) -> None:
        libs = Paths(folder).libs
        super().__init__(folder, logs=folder, guardian=guardian, libs=libs, say=lambda _: None)
        self.certificates = certificates
        self.address_of_certificates = f"{HOST}:{free_port()}"

    def _settings(self) -> dict[str, str]:
        name = "org.apache.kafka.common.security.{0}.{1}LoginModule required"
        # As JAAS wants it in quotes, and Java's files of properties want each backslash twice.
        password = json.dumps(PASSWORD).replace("\\", "\\\\")
        user = f'username="{USER}" password={password} user_{USER}={password};'
        given = super()._settings()
        return {
            **given,
            "listeners": given["listeners"].replace(
                "PLAINTEXT://", f"SSL://{self.address_of_certificates},SASL_SSL://", 1
            ),
            "listener.security.protocol.map": "SASL_SSL:SASL_SSL,SSL:SSL,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "SASL_SSL",
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": f"{name.format('plain', 'Plain')} {user}",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f"{name.format('scram', 'Scram')};",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.certificates.server),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.certificates.authority),
            "listener.name.ssl.ssl.client.auth": "required",
        }

    def _is_ready(self) -> bool:
        options = {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "PLAIN",
            "sasl.username": USER,
            "sasl.password": PASSWORD,
            "ssl.ca.location": str(self.certificates.authority),
        }
        try:
            client = AdminClient({"bootstrap.servers": self.address, "log_level": 0, **options})
            return bool(client.list_topics(timeout=1).brokers)
        except KafkaException:
            return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    guardian = Guardian()
    certificates = make_certificates(tmp_path_factory.mktemp("certificates"))
    kafka = SecuredKafka(tmp_path_factory.mktemp("secured"), guardian, certificates)
    kafka.start()
    yield Server(kafka.address, kafka.address_of_certificates, certificates)
    kafka.stop()
    guardian.close()


@pytest.fixture(autouse=True)
def user(server: Server, settings: Settings) -> Iterator[None]:
    """Let the service use the broker as its user."""
    use(settings, BOOTSTRAP_SERVERS=server.of_users, TOPIC=TOPIC, CONSUMER_GROUP=TOPIC, PARTITIONS=1)
    use(settings, SECURITY_PROTOCOL="SASL_SSL", CA_FILE=str(server.certificates.authority))
    use(settings, SASL_MECHANISM="PLAIN", SASL_USERNAME=USER, SASL_PASSWORD=PASSWORD)
    yield
    health.forget_clients()


def use(settings: Settings, **values: object) -> None:
    for name, value in values.items():
        setattr(settings, f"KAFKA_{name}", value)
    health.forget_clients()


def use_certificate(settings: Settings, server: Server) -> None:
    use(settings, SECURITY_PROTOCOL="SSL", BOOTSTRAP_SERVERS=server.of_certificates)
    use(settings, SASL_USERNAME="", SASL_PASSWORD="")
    use(settings, CERTIFICATE_FILE=str(server.certificates.server), KEY_FILE=str(server.certificates.server))


def kafka_health() -> str | None:
    try:
        health.PARTS["kafka"]()
    except health.PartError as error:
        return str(error)
    return None


def pass_a_message() -> None:
    """Send a message as the outbox does, read it as the consumer does, and ask for the lag."""
    ensure_topic(make_admin())
    wait_until(lambda: kafka_health() is None, what="the topic is known")
    with running(Recorder()) as recorder:
        producer = make_producer({})
        producer.produce(TOPIC, b"a price")
        assert producer.flush(30) == 0
        wait_until(lambda: b"a price" in [value for batch in recorder.batches for value in batch])
    assert [each.messages for each in read_lag()] == [0]


def test_messages_pass_with_a_user_and_a_password() -> None:
    pass_a_message()


def test_messages_pass_with_a_scrambled_password(settings: Settings) -> None:
    credential = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    change = UserScramCredentialUpsertion("scrammed", credential, b"another secret")
    admin = make_admin()
    for done in admin.alter_user_scram_credentials([change]).values():
        done.result(10)
    use(settings, SASL_MECHANISM="SCRAM-SHA-512", SASL_USERNAME="scrammed", SASL_PASSWORD="another secret")
    pass_a_message()


def test_messages_pass_with_a_certificate(server: Server, settings: Settings) -> None:
    use_certificate(settings, server)
    pass_a_message()


def test_wrong_password_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    use(settings, SASL_PASSWORD="wrong-Password")
    wait_until(lambda: kafka_health() == f"refuses this service: {WRONG}", what="the reason is known")
    monkeypatch.setattr(topics, "TIMEOUT_S", 5.0)
    with pytest.raises(CommandError, match=WRONG) as caught:
        call_command("ensure_topic")
    assert "wrong-Password" not in str(caught.value)


def test_certificate_that_is_not_trusted_is_named(settings: Settings) -> None:
    use(settings, CA_FILE="")
    wait_until(lambda: "certificate verify failed" in (kafka_health() or ""), what="the reason is known")


def test_missing_certificate_is_named(server: Server, settings: Settings) -> None:
    use_certificate(settings, server)
    use(settings, CERTIFICATE_FILE="", KEY_FILE="")
    wait_until(lambda: "certificate required" in (kafka_health() or ""), what="the reason is known")


def test_files_that_cannot_be_used_are_named(settings: Settings) -> None:
    use(settings, CERTIFICATE_FILE="/nowhere/service.cert", KEY_FILE="/nowhere/service.key")
    assert "its settings cannot be used: " in (kafka_health() or "")


def test_refusal_before_an_answer_is_no_reason_of_a_later_failure() -> None:
    ensure_topic(make_admin())
    wait_until(lambda: kafka_health() is None, what="the topic is known")
    client = health._kafka().get()
    client._refusals.append("of long ago")
    assert kafka_health() is None
    assert client.refusal() is None


def test_broker_that_is_away_is_no_refusal(settings: Settings) -> None:
    use(settings, BOOTSTRAP_SERVERS=f"{HOST}:{free_port()}")
    assert kafka_health() == "cannot be reached"
