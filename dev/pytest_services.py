"""A pytest plugin: real PostgreSQL, Valkey and Kafka for every test run.

What DATABASE_URL, REDIS_URL and KAFKA_BOOTSTRAP_SERVERS do not give is started in a temporary folder before
Django's settings are read, and ended with the run, however that ends. The fixture `services` gives the parts
to tests that stop and start them.
"""

import os
import tempfile
import time
from collections.abc import Collection, Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dev.embedded.memory_kafka import MemoryKafka
from dev.embedded.part import Part, PartError
from dev.embedded.parts import DATABASE, KAFKA, REDIS, SETTINGS, Embedded, Place, Wishes
from dev.guardian import ROOT, Guardian

# For `--help` and `--collect-only`, which read settings and use none of the parts.
NOWHERE = {
    DATABASE: "postgres://nobody@127.0.0.1:1/none",
    REDIS: "redis://127.0.0.1:1/0",
    KAFKA: "127.0.0.1:1",
}
# The same for everybody, whatever the shell or `.env` say; an empty key is no key.
FIXED = {
    "SECRET_KEY": "only-for-tests",
    "HTTPS_ONLY": "false",
    "ADMIN_PASSWORD": "",
    "ALPHA_VANTAGE_API_KEY": "",
    "FINNHUB_API_KEY": "",
}


@dataclass(frozen=True)
class Service:
    """One of the three parts, with the address that settings have for it."""

    address: str
    part: Part | None

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._own().pid

    def stop(self) -> None:
        """Stop it as an operator would; the test is skipped where the part is not this run's own."""
        self._own().stop()

    def start(self) -> None:
        """Start it again on the same address and data."""
        self._own().start()

    def _own(self) -> Part:
        if self.part is None:
            pytest.skip(f"{self.address} was given by its address and cannot be stopped")
        if isinstance(self.part, MemoryKafka):
            pytest.skip("the in-memory broker forgets everything when it is stopped")
        return self.part


@dataclass(frozen=True)
class Services:
    """The three parts."""

    postgres: Service
    valkey: Service
    kafka: Service


_services = pytest.StashKey[Services]()
_header = pytest.StashKey[str]()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, None, None]:
    """Start the parts before pytest-django reads settings."""
    options = early_config.known_args_namespace
    given = [name for name in SETTINGS if os.environ.get(name)]
    for name in FIXED:
        os.environ.pop(f"{name}_FILE", None)
    os.environ.update(FIXED)
    if options.help or options.version or options.collectonly:
        os.environ.update({name: address for name, address in NOWHERE.items() if name not in given})
    else:
        _start(early_config, given)
    return (yield)


def pytest_report_header(config: pytest.Config) -> str | None:
    """Tell which parts this run uses."""
    return config.stash.get(_header, None)


@pytest.fixture(scope="session")
def services(request: pytest.FixtureRequest) -> Services:
    """Give PostgreSQL, Valkey and Kafka to a test that stops or starts them."""
    return request.config.stash[_services]


def _start(config: pytest.Config, given: Collection[str]) -> None:
    began = time.monotonic()
    try:
        data = Path(tempfile.mkdtemp(prefix="marketdata-tests-"))
        embedded = _embedded(config, data, given)
        config.add_cleanup(embedded.stop)
        embedded.start()
    except PartError as error:
        raise pytest.UsageError(str(error)) from error
    os.environ.update(embedded.addresses())
    os.environ["HEARTBEAT_DIR"] = str(data / "heartbeats")
    parts = {name: embedded.parts.get(name) for name in SETTINGS}
    database, redis, kafka = (Service(os.environ[name], part) for name, part in parts.items())
    config.stash[_services] = Services(database, redis, kafka)
    titles = [part.title if part else f"{name} as given" for name, part in parts.items()]
    config.stash[_header] = f"services: {', '.join(titles)} ({time.monotonic() - began:.1f} s)"


def _embedded(config: pytest.Config, data: Path, given: Collection[str]) -> Embedded:
    guardian = Guardian()
    config.add_cleanup(guardian.close)
    guardian.remove(data)
    return Embedded(
        Place(data, libs=ROOT / ".data" / "kafka-libs"),
        Wishes(
            durable=False,
            apache_kafka_only=bool(os.environ.get("REQUIRE_APACHE_KAFKA")),
            topic=os.environ.get("KAFKA_TOPIC", "price-events"),
        ),
        given=given,
        guardian=guardian,
        say=lambda text: print(text, flush=True),
    )
