"""docker-compose.yml, Dockerfile and what they run, as far as it can be known without a Docker engine."""

import ast
import importlib
import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from celery.app.utils import find_app
from celery.bin.base import CLIContext
from celery.bin.celery import celery as celery_cli
from django.conf import settings
from django.core.management import get_commands, load_command_class
from granian.cli import cli as granian_cli
from honcho.environ import parse_procfile

from prices.jobs.services import queue_of
from providers.registry import PROVIDER_NAMES

ROOT = Path(__file__).resolve().parent.parent
OF_ANOTHER_KAFKA = ("KAFKA_S", "KAFKA_CA_", "KAFKA_CERTIFICATE_", "KAFKA_KEY_")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PACKAGES = ("marketdata", "providers", "prices", "consumers")

ONE_OFF = {"secret", "migrate"}
PARTS = {"postgres": "postgres:18", "valkey": "valkey/valkey:9", "kafka": "apache/kafka:4.3.1"}
APP = sorted(set(SERVICES) - set(PARTS))
LONG_RUNNING = sorted(set(SERVICES) - ONE_OFF)
PROCESSES = sorted(set(APP) - ONE_OFF)


def command_of(service: str) -> list[str]:
    return shlex.split(SERVICES[service]["command"])


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


POLLERS = [f"poller-{provider.replace('_', '-')}" for provider in PROVIDER_NAMES]


# --- The file itself ------------------------------------------------------------------------------


def test_compose_file_matches_the_compose_schema() -> None:
    check = ["check_jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"]
    ended = subprocess.run(
        [sys.executable, "-m", *check], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_services_are_the_parts_one_offs_and_processes() -> None:
    assert set(SERVICES) == set(PARTS) | ONE_OFF | {
        "web",
        "stream",
        *POLLERS,
        "maintenance",
        "beat",
        "consumer",
    }


def test_postgres_container_has_the_documented_name_volume_and_database() -> None:
    postgres = SERVICES["postgres"]
    assert postgres["container_name"] == "marketdata_postgres"
    assert postgres["volumes"] == ["postgres:/var/lib/postgresql"]
    assert postgres["environment"]["POSTGRES_DB"] == "marketdata"
    assert postgres["environment"]["POSTGRES_USER"] == "postgres"


def test_named_volumes_are_declared_and_used() -> None:
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert used == set(COMPOSE["volumes"])


@pytest.mark.parametrize("service", PARTS)
def test_images_of_the_parts_are_pinned(service: str) -> None:
    assert SERVICES[service]["image"] == PARTS[service]


@pytest.mark.parametrize("service", APP)
def test_image_of_the_application_is_built_once_and_never_pulled(service: str) -> None:
    assert SERVICES[service]["image"] == SERVICES["secret"]["image"]
    assert ("build" in SERVICES[service]) == (service == "secret")
    assert SERVICES[service]["pull_policy"] == ("build" if service == "secret" else "never")


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_published_on_loopback_and_can_be_changed(service: str) -> None:
    for port in SERVICES[service].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{[A-Z_]+:-[0-9]+\}:[0-9]+", port)


@pytest.mark.parametrize("service", LONG_RUNNING)
def test_long_running_services_are_restarted_and_checked(service: str) -> None:
    assert SERVICES[service]["restart"] == "unless-stopped"
    assert SERVICES[service]["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


@pytest.mark.parametrize("service", sorted(ONE_OFF))
def test_one_off_services_end(service: str) -> None:
    assert SERVICES[service]["restart"] in {"no", "on-failure:3"}
    assert "healthcheck" not in SERVICES[service]


@pytest.mark.parametrize("service", SERVICES)
def test_depends_on_waits_for_what_can_be_known(service: str) -> None:
    for name, wait in SERVICES[service].get("depends_on", {}).items():
        assert wait["condition"] == (
            "service_completed_successfully" if name in ONE_OFF else "service_healthy"
        )
        assert name in ONE_OFF or "healthcheck" in SERVICES[name]


@pytest.mark.parametrize("service", PROCESSES)
def test_processes_start_after_every_part_and_the_migration(service: str) -> None:
    assert set(SERVICES[service]["depends_on"]) == set(PARTS) | {"migrate"}


@pytest.mark.parametrize("service", APP)
def test_application_containers_have_no_rights_to_spare(service: str) -> None:
    assert SERVICES[service]["read_only"] is True
    assert SERVICES[service]["cap_drop"] == ["ALL"]
    assert SERVICES[service]["security_opt"] == ["no-new-privileges:true"]
    writable = [volume for volume in SERVICES[service]["volumes"] if not volume.endswith(":ro")]
    assert bool(writable) == (service == "secret")


# --- What the containers are told -----------------------------------------------------------------


READERS = re.compile(r"env_\w+|env\.\w+|os\.environ\.get|os\.getenv")


def variables_read(tree: ast.AST) -> Iterator[str]:
    """Yield each name that is read from the environment, by our own readers or by os.environ."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
            yield ast.literal_eval(node.slice)
        if isinstance(node, ast.Call) and READERS.fullmatch(ast.unparse(node.func)):
            yield from (ast.literal_eval(word) for word in node.args[:1] if isinstance(word, ast.Constant))


def variables_of(*paths: Path) -> set[str]:
    return {name for path in paths for name in variables_read(ast.parse(path.read_text()))}


# Read when a test asks: each of the processes that collect tests would do it otherwise.
@cache
def product_variables() -> set[str]:
    return variables_of(*(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")))


def settings_given(service: str) -> set[str]:
    """Return the settings that the service gets, each as itself or as a file."""
    given = SERVICES[service]["environment"]
    return {name if name in product_variables() else name.removesuffix("_FILE") for name in given}


@pytest.mark.parametrize("service", sorted(set(APP) - {"secret"}))
def test_variables_set_are_variables_that_are_read(service: str) -> None:
    given = settings_given(service)
    assert given - product_variables() == set()


def test_variables_of_the_secret_service_are_read_by_its_script() -> None:
    assert set(SERVICES["secret"]["environment"]) == variables_of(ROOT / "docker" / "secret_key.py")


@pytest.mark.parametrize("service", PROCESSES)
def test_every_setting_reaches_the_processes(service: str) -> None:
    settings_read = variables_of(ROOT / "marketdata" / "settings.py")
    # Only "migrate" makes the admin; and the Kafka beside them lets everybody in.
    missing = settings_read - settings_given(service) - {"ADMIN_PASSWORD"}
    assert {name for name in missing if not name.startswith(OF_ANOTHER_KAFKA)} == set()


def test_plain_http_is_an_exception_that_no_copied_env_file_undoes() -> None:
    assert SERVICES["web"]["environment"]["HTTPS_ONLY"] == "false"


def test_database_url_names_the_service_and_its_password() -> None:
    password = SERVICES["postgres"]["environment"]["POSTGRES_PASSWORD"]
    database_url = SERVICES["web"]["environment"]["DATABASE_URL"]
    assert database_url == f"postgres://postgres:{password}@postgres:5432/marketdata"


def test_kafka_tells_each_side_an_address_that_it_can_reach() -> None:
    kafka = SERVICES["kafka"]["environment"]
    told = dict(address.split("://") for address in kafka["KAFKA_ADVERTISED_LISTENERS"].split(","))
    bound = dict(address.split("://") for address in kafka["KAFKA_LISTENERS"].split(","))
    published, inside = SERVICES["kafka"]["ports"][0].rsplit(":", 1)
    assert told["INSIDE"] == SERVICES["web"]["environment"]["KAFKA_BOOTSTRAP_SERVERS"]
    assert told["INSIDE"].removeprefix("kafka") == bound["INSIDE"]
    assert told["HOST"] == published
    assert bound["HOST"] == f":{inside}"


def test_kafka_makes_no_topic_by_accident_and_needs_no_second_node() -> None:
    kafka = SERVICES["kafka"]["environment"]
    assert kafka["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    copies = {name: value for name, value in kafka.items() if name.endswith(("_FACTOR", "_MIN_ISR"))}
    assert len(copies) == 5
    assert set(copies.values()) == {1}
    assert SERVICES["kafka"]["volumes"] == [f"kafka:{kafka['KAFKA_LOG_DIRS']}"]


# --- What the containers run ----------------------------------------------------------------------


def parse_celery(words: list[str]) -> None:
    at = next(index for index, word in enumerate(words) if word in celery_cli.commands)
    with celery_cli.make_context("celery", words[: at + 1]) as context:
        app = find_app(context.params["app"])
        context.obj = CLIContext(app=app, no_color=True, workdir=None)
        celery_cli.commands[words[at]].make_context(words[at], words[at + 1 :], parent=context)


def parse_granian(words: list[str]) -> None:
    context = granian_cli.make_context("granian", words)
    module, _, name = context.params["app"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def parse_python(words: list[str]) -> None:
    assert (ROOT / words[0]).is_file()
    if words[0] == "manage.py":
        command = load_command_class(get_commands()[words[1]], words[1])
        command.create_parser("manage.py", words[1]).parse_args(words[2:])


PARSERS = {"celery": parse_celery, "granian": parse_granian, "python": parse_python}


@pytest.mark.parametrize("service", APP)
def test_command_exists_and_its_arguments_are_understood(service: str) -> None:
    program, *words = command_of(service)
    assert os.access(Path(sys.executable).parent / program, os.X_OK)
    PARSERS[program](words)


def test_processes_are_those_of_the_procfile() -> None:
    programs = parse_procfile((ROOT / "Procfile").read_text()).processes
    procfile = {name: shlex.split(command) for name, command in programs.items()}
    host, port = option(procfile["web"], "--host"), option(procfile["web"], "--port")
    composed = {name: command_of(name) for name in PROCESSES}
    composed["web"] = [{"0.0.0.0": host, "8000": port}.get(word, word) for word in composed["web"]]
    assert composed["stream"][:3] == procfile["stream"]
    composed["stream"] = procfile["stream"]
    assert composed == procfile


def test_workers_take_from_every_queue_that_is_written_to() -> None:
    polled = {option(command_of(poller), "--queues") for poller in POLLERS}
    assert polled == {queue_of(provider) for provider in PROVIDER_NAMES}
    beat_tasks: dict[str, Any] = settings.CELERY_BEAT_SCHEDULE
    written = {task["options"]["queue"] for task in beat_tasks.values()} | {
        settings.CELERY_TASK_DEFAULT_QUEUE
    }
    assert {option(command_of("maintenance"), "--queues")} == written


def test_web_listens_on_the_port_that_is_published_and_checked() -> None:
    words = command_of("web")
    assert option(words, "--host") == "0.0.0.0"
    assert SERVICES["web"]["ports"] == [f"127.0.0.1:${{PORT:-8000}}:{option(words, '--port')}"]
    check = SERVICES["web"]["healthcheck"]["test"]
    compile(check[-1], "healthcheck of web", "exec")
    assert f'"127.0.0.1", {option(words, "--port")}' in check[-1]
    assert '"GET", "/readyz"' in check[-1]


def test_stream_listens_on_the_port_that_is_published() -> None:
    words = command_of("stream")
    assert option(words, "--host") == "0.0.0.0"
    assert SERVICES["stream"]["ports"] == [f"127.0.0.1:${{STREAM_PORT:-8001}}:{option(words, '--port')}"]


@pytest.mark.parametrize("service", sorted(set(PROCESSES) - {"web"}))
def test_health_check_asks_for_the_heartbeat_of_its_own_process(service: str) -> None:
    assert SERVICES[service]["healthcheck"]["test"] == ["CMD", "python", "-m", "prices.heartbeat", service]
    words = command_of(service)
    assert "worker" not in words or option(words, "--hostname") == f"{service}@%h"


# --- The image ------------------------------------------------------------------------------------


def test_image_is_built_in_stages_with_hashes_and_runs_as_a_user() -> None:
    lines = DOCKERFILE.splitlines()
    assert [line for line in lines if line.startswith("FROM ")] == [
        "FROM python:3.11-slim AS builder",
        "FROM python:3.11-slim",
    ]
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["app"]
    assert "--require-hashes --requirement requirements.txt" in DOCKERFILE
    assert not lines[0].startswith("# syntax=")


def test_image_installs_requirements_before_it_copies_the_sources() -> None:
    assert (
        DOCKERFILE.index("COPY requirements.txt")
        < DOCKERFILE.index("pip install")
        < DOCKERFILE.index("COPY . .")
    )


def test_image_holds_the_product_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    named = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert named == {"requirements.txt", "manage.py", "docker", *PACKAGES}
    assert {app for app in settings.INSTALLED_APPS if (ROOT / app).is_dir()} <= named


# --- The generated key ----------------------------------------------------------------------------


def run_secret_key(path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "docker" / "secret_key.py"],
        env={"SECRET_KEY_FILE": str(path), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_secret_key_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "secret_key"
    assert run_secret_key(path).returncode == 0
    made = path.read_text()
    assert run_secret_key(path).returncode == 0
    assert path.read_text() == made
    assert len(made.strip()) >= 50
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_secret_key_given_replaces_the_one_made(tmp_path: Path) -> None:
    path = tmp_path / "secret_key"
    run_secret_key(path)
    run_secret_key(path, SECRET_KEY="given by the user")
    assert path.read_text() == "given by the user\n"
    run_secret_key(path)
    assert path.read_text() == "given by the user\n"


def test_secret_key_never_reaches_the_output(tmp_path: Path) -> None:
    ended = run_secret_key(tmp_path / "secret_key", SECRET_KEY="given by the user")
    assert ended.stdout + ended.stderr == ""


def test_secret_key_without_a_folder_ends_with_an_error(tmp_path: Path) -> None:
    ended = run_secret_key(tmp_path / "absent" / "secret_key")
    assert ended.returncode == 1
    assert "FileNotFoundError" in ended.stderr
