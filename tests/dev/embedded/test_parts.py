"""The embedded parts start, keep their data and address, and say why they do not."""

import pwd
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from environ import Env

from dev.embedded.part import Part, PartError
from dev.embedded.parts import DATABASE, KAFKA, REDIS, Embedded, Paths
from dev.embedded.postgres import PostgreSQL
from dev.embedded.valkey import NO_RETRY, Valkey
from dev.guardian import Guardian
from dev.pytest_services import Services
from tests.dev.processes import processes_below

# Longer than the 107 bytes that the path of a unix socket may have.
LONG = "a-folder-with-a-long-name-" * 4
# It takes some tenths of a second to read these again.
MANY_WRITES = "for i = 1, 500000 do redis.call('SET', i, i) end"


@contextmanager
def running(part: Part) -> Iterator[Part]:
    try:
        part.start()
        yield part
    finally:
        part.stop()


def test_postgres_restart_keeps_data_and_address(tmp_path: Path, guardian: Guardian) -> None:
    postgres = PostgreSQL(tmp_path / LONG, logs=tmp_path, guardian=guardian, durable=False)
    with running(postgres):
        address = postgres.address
        with psycopg.connect(address) as connection:
            connection.execute("CREATE TABLE kept AS SELECT uuidv7() AS id")
    assert processes_below(tmp_path) == []
    with running(postgres), psycopg.connect(postgres.address) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (1,)
    assert postgres.address == address
    assert postgres.version.startswith("18.")


def test_postgres_socket_is_closed_to_others(services: Services) -> None:
    folder = Path(services.postgres.address.partition("host=")[2])
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / ".s.PGSQL.5432").stat().st_mode & 0o777 == 0o700


def test_postgres_open_socket_folder_is_refused(tmp_path: Path, guardian: Guardian) -> None:
    postgres = PostgreSQL(tmp_path / "postgres", logs=tmp_path, guardian=guardian)
    postgres.socket_folder.mkdir(parents=True)
    postgres.socket_folder.chmod(0o755)
    with pytest.raises(PartError, match="open to other users"):
        postgres.start()


def test_valkey_killed_keeps_data_and_address(tmp_path: Path, guardian: Guardian) -> None:
    valkey = Valkey(tmp_path / "valkey", logs=tmp_path, guardian=guardian)
    with running(valkey):
        address = valkey.address
        with redis.Redis.from_url(address) as client:
            client.set("kept", "1")
        valkey.kill()
    assert processes_below(tmp_path) == []
    with running(valkey), redis.Redis.from_url(valkey.address) as client:
        assert client.get("kept") == b"1"
    assert valkey.address == address


def test_valkey_is_ready_when_it_has_read_its_log(tmp_path: Path, guardian: Guardian) -> None:
    valkey = Valkey(tmp_path / "valkey", logs=tmp_path, guardian=guardian)
    with running(valkey), redis.Redis.from_url(valkey.address, socket_timeout=60) as client:
        client.eval(MANY_WRITES, 0)
    with running(valkey), redis.Redis.from_url(valkey.address, retry=NO_RETRY) as client:
        assert client.dbsize() == 500_000


def test_valkey_port_taken_meanwhile_takes_another(tmp_path: Path, guardian: Guardian) -> None:
    (tmp_path / "valkey").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        (tmp_path / "valkey" / "port").write_text(str(taken))
        with running(Valkey(tmp_path / "valkey", logs=tmp_path, guardian=guardian)) as valkey:
            assert f":{taken}/" not in valkey.address


def test_kafka_restart_keeps_data_and_address(services: Services) -> None:
    address = services.kafka.address
    admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
    admin.create_topics([NewTopic("kept", num_partitions=3)])["kept"].result(timeout=30)
    produce(address, topic="kept")

    services.kafka.stop()
    services.kafka.start()

    assert consume(address, topic="kept") == [b"value"]


def test_parts_start_again_in_a_folder_of_any_name(
    tmp_path: Path, guardian: Guardian, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    # Options for other Java programs.
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Xmx1k")
    folder = tmp_path / "Prüfung, 'zwei' #1 50%20"
    folder.mkdir()
    for _ in range(2):
        embedded = embed(folder, guardian, only=(DATABASE, REDIS, KAFKA))
        try:
            embedded.start()
            addresses = embedded.addresses()
            options = Env.db_url_config(addresses[DATABASE])["OPTIONS"]
            psycopg.connect(host=options["host"], user="postgres", dbname="marketdata").close()
            psycopg.connect(addresses[DATABASE]).close()
            assert redis.Redis.from_url(addresses[REDIS]).ping()
            AdminClient({"bootstrap.servers": addresses[KAFKA], "log_level": 0}).list_topics(timeout=30)
        finally:
            embedded.stop()
    assert (folder / "kafka" / "data" / "meta.properties").exists()
    assert (folder / "valkey" / "appendonlydir").exists()
    assert processes_below(folder) == []


def test_postgres_as_root_needs_no_entry_for_nobody(
    tmp_path: Path, guardian: Guardian, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr(pwd, "getpwnam", unknown)
    with running(PostgreSQL(tmp_path / "postgres", logs=tmp_path, guardian=guardian, durable=False)) as part:
        psycopg.connect(part.address).close()


def test_embedded_part_that_fails_is_named_and_the_others_are_stopped(
    tmp_path: Path, guardian: Guardian
) -> None:
    cluster = tmp_path / "postgres" / "cluster"
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").write_text("17\n")
    embedded = embed(tmp_path, guardian, only=(DATABASE, REDIS))

    with pytest.raises(PartError) as caught:
        embedded.start()

    assert caught.value.part == "PostgreSQL"
    assert "  | " in str(caught.value)
    assert str(tmp_path / "logs" / "postgres.log") in str(caught.value)
    assert processes_below(tmp_path) == []


def test_embedded_interrupted_leaves_nothing(tmp_path: Path, guardian: Guardian) -> None:
    embedded = embed(tmp_path, guardian, only=(DATABASE, REDIS))

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embedded.start(check=interrupt)
    assert processes_below(tmp_path) == []


def embed(folder: Path, guardian: Guardian, *, only: tuple[str, ...]) -> Embedded:
    given = {DATABASE, REDIS, KAFKA} - set(only)
    return Embedded(Paths(folder), durable=False, given=given, guardian=guardian, say=print)


def produce(address: str, *, topic: str) -> None:
    producer = Producer({"bootstrap.servers": address, "acks": "all", "log_level": 0})
    producer.produce(topic, b"value", partition=0)
    assert producer.flush(30) == 0


def consume(address: str, *, topic: str) -> list[bytes]:
    consumer = Consumer(
        {"bootstrap.servers": address, "group.id": "test", "auto.offset.reset": "earliest", "log_level": 0}
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    messages = consumer.consume(1, timeout=30)
    consumer.close()
    return [message.value() or b"" for message in messages if message.error() is None]
