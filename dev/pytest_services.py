"""A pytest plugin: real PostgreSQL, Valkey and Kafka for every test run.

What DATABASE_URL, REDIS_URL and KAFKA_BOOTSTRAP_SERVERS do not give is started in a temporary folder before
Django's settings are read, and ended with the run, however that ends. The fixture `services` gives the parts
to tests that stop and start them. Under pytest-xdist (`-n 4`) each worker has parts of its own.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Collection, Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dev.embedded.kafka import ApacheKafka
from dev.embedded.part import Part, PartError
from dev.embedded.parts import DATABASE, KAFKA, REDIS, SETTINGS, Embedded, Paths
from dev.guardian import Guardian
from dev.loopback import keep_from_proxies

# For processes that read settings and use none of the parts: xdist's controller, `--help`, `--collect-only`.
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
    "CORS_ALLOWED_ORIGINS": "",
    "ALPHA_VANTAGE_API_KEY": "",
    "FINNHUB_API_KEY": "",
    "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
    "KAFKA_SASL_USERNAME": "",
    "KAFKA_SASL_PASSWORD": "",
    "KAFKA_CA_FILE": "",
    "KAFKA_CERTIFICATE_FILE": "",
    "KAFKA_KEY_FILE": "",
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
    # Workers inherit what their controller has set, and that has no part that is given.
    given = [name for name in SETTINGS if os.environ.get(name) and not _is_worker()]
    for name in FIXED:
        os.environ.pop(f"{name}_FILE", None)
    os.environ.update(FIXED)
    keep_from_proxies(os.environ)
    if options.help or options.version or options.collectonly or _is_controller(options):
        _refuse_shared_parts(options, given)
        os.environ.update({name: address for name, address in NOWHERE.items() if name not in given})
        if _is_controller(options):
            _record_start_of_kafka()
    else:
        _start(early_config, given)
    return (yield)


def pytest_report_header(config: pytest.Config) -> str | None:
    """Tell which parts this run uses."""
    if _is_controller(config.option):
        return "services: each worker starts its own"
    return config.stash.get(_header, None)


@pytest.fixture(scope="session")
def services(request: pytest.FixtureRequest) -> Services:
    """Return PostgreSQL, Valkey and Kafka, for a test that stops or starts them."""
    return request.config.stash[_services]


def _is_controller(options: argparse.Namespace) -> bool:
    """Return whether the tests run in other processes than this one."""
    return not _is_worker() and bool(getattr(options, "numprocesses", None))


def _is_worker() -> bool:
    return "PYTEST_XDIST_WORKER" in os.environ


def _refuse_shared_parts(options: argparse.Namespace, given: Collection[str]) -> None:
    if given and _is_controller(options):
        raise pytest.UsageError(
            f"{' and '.join(given)} would be shared by workers, whose tests would disturb each other.\n"
            "Run all tests in one process: make test ARGS=tests"
        )


def _record_start_of_kafka() -> None:
    """Let the workers' Kafkas start fast: they start some twenty of them."""
    guardian = Guardian()
    try:
        with tempfile.TemporaryDirectory(prefix="marketdata-tests-") as data:
            paths = Paths(Path(data))
            kafka = ApacheKafka(paths.data, logs=paths.logs, guardian=guardian, libs=paths.libs, say=_say)
            if not kafka.starts_fast:
                _say(f"Recording a start of {kafka.title} (once) ...")
                kafka.start()
                kafka.stop()
    except PartError as error:
        raise pytest.UsageError(str(error)) from error
    finally:
        guardian.close()


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
        Paths(data),
        durable=False,
        given=given,
        guardian=guardian,
        say=_say,
    )


def _say(text: str) -> None:
    print(text, flush=True)
