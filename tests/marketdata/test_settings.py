"""Settings: every variable is documented, and a bad one ends the start with its name."""

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from tests.warm_start import can_start, run

ROOT = Path(settings.BASE_DIR)
CHECK = "python manage.py check --deploy --fail-level WARNING"
# Read by a process that loads no settings, by `make run` or by docker compose.
READ_ELSEWHERE = {"HEARTBEAT_DIR", "PORT", "POSTGRES_PORT", "KAFKA_PORT", "POSTGRES_PASSWORD"}


def variables_read() -> set[str]:
    source = (ROOT / "marketdata" / "settings.py").read_text()
    return set(re.findall(r'env_\w+\(\s*"([A-Z_]+)"', source))


def variables_in_example() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    pairs = (line.partition("=") for line in lines if re.match(r"[A-Z_]+=", line))
    return {name: value for name, _, value in pairs}


def start(**changes: str | None) -> subprocess.CompletedProcess[str]:
    environment = environment_with(changes)
    if can_start(CHECK, environment):
        return run(CHECK, environment=environment)
    return start_with_warnings(**changes)


def start_with_warnings(**changes: str | None) -> subprocess.CompletedProcess[str]:
    """Run it in a process in which each warning is an error."""
    command = [sys.executable, "-W", "error", *CHECK.split()[1:]]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.run(command, cwd=ROOT, env=environment_with(changes), check=False, **pipes)


def environment_with(changes: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in (os.environ | changes).items() if value is not None}


def test_example_lists_every_variable_and_no_other() -> None:
    assert set(variables_in_example()) == variables_read() | READ_ELSEWHERE


def test_readme_names_every_variable() -> None:
    readme = (ROOT / "README.md").read_text()
    assert {name for name in variables_in_example() if f"`{name}`" not in readme} == set()


@pytest.mark.parametrize(
    "name", ["PROVIDER_TIMEOUT_S", "POLL_DEADLINE_S", "LATEST_REUSE_S", "KAFKA_PARTITIONS"]
)
def test_example_shows_the_default(name: str) -> None:
    source = (ROOT / "marketdata" / "settings.py").read_text()
    assert f'env_int("{name}", {variables_in_example()[name]},' in source


@pytest.mark.parametrize("name", ["SECRET_KEY", "DATABASE_URL"])
def test_start_without_what_it_needs_names_it(name: str, tmp_path: Path) -> None:
    result = start(**{name: ""})
    assert result.returncode == 1
    assert f"{name} is not set. Start `make run` first, which sets it, or see .env.example." in result.stdout


def test_check_refuses_settings_that_cannot_work() -> None:
    result = start(
        REDIS_URL="",
        KAFKA_BOOTSTRAP_SERVERS="",
        PROVIDER_ORDER="finnhub,bloomberg",
        FINNHUB_API_KEY="short",
        FINNHUB_BASE_URL="http://127.0.0.1:8100",
        ALPHA_VANTAGE_BASE_URL="https://notalphavantage.co",
    )
    assert result.returncode == 1
    told = Counter(re.findall(r"marketdata\.[EW]\d+", result.stdout))
    refused = ("E002", "E003", "E004", "E005")
    assert told == {**{f"marketdata.{number}": 1 for number in refused}, "marketdata.W001": 2}


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"SECURITY_PROTOCOL": "SASL_SSL", "SASL_USERNAME": "x"}, "SASL_PASSWORD must be set"),
        ({"SASL_USERNAME": "x", "SASL_PASSWORD": "y"}, "SASL_PASSWORD are not used"),
        ({"SECURITY_PROTOCOL": "SSL", "KEY_FILE": "/x"}, "KAFKA_KEY_FILE must both be set"),
        ({"CERTIFICATE_FILE": "/x", "KEY_FILE": "/x"}, "CERTIFICATE_FILE are not used"),
        (
            {"SECURITY_PROTOCOL": "SSL", "CERTIFICATE_FILE": "/x", "KEY_FILE": "/x"},
            "the files of Kafka's certificates cannot be used: ",
        ),
    ],
)
def test_check_refuses_half_of_what_kafka_asks_for(variables: dict[str, str], text: str) -> None:
    result = start(**{f"KAFKA_{name}": value for name, value in variables.items()})
    assert result.returncode == 1
    (line,) = (line for line in result.stdout.splitlines() if "E006" in line)
    assert text in line


def test_check_refuses_an_order_of_simulated_prices() -> None:
    result = start(PROVIDER_ORDER="simulated")
    assert result.returncode == 1
    assert "marketdata.E004" in result.stdout


def test_check_deploy_is_clean_under_production_settings() -> None:
    secret = "a-Long-and-random-Text-of-50-characters-or-more-0123456789"
    result = start_with_warnings(
        SECRET_KEY=secret, DEBUG=None, HTTPS_ONLY=None, ALLOWED_HOSTS="prices.example.org", API_AUTH="keys"
    )
    told = "System check identified no issues (0 silenced).\n"
    assert (result.returncode, result.stdout) == (0, told)


@pytest.mark.parametrize(
    ("hosts", "auth", "is_warned"),
    [
        ("prices.example.org", None, True),
        ("localhost,192.0.2.1", None, True),
        ("*", None, True),
        ("localhost,127.0.0.1,[::1],0.0.0.0", None, False),
        # Who copies the example has not said so.
        ("prices.example.org", variables_in_example()["API_AUTH"], True),
        ("prices.example.org", "open", False),
        ("prices.example.org", "keys", False),
    ],
)
def test_check_deploy_warns_of_a_public_service_that_anybody_may_call(
    hosts: str, auth: str | None, is_warned: bool
) -> None:
    result = start(ALLOWED_HOSTS=hosts, API_AUTH=auth)
    assert ("marketdata.W002" in result.stdout) == is_warned


@pytest.mark.parametrize("rate", ["10", "10/1y", "1/1s,5/1m", "100001/1d"])
def test_rate_that_cannot_be_counted_is_refused(rate: str) -> None:
    result = start(API_RATE=rate)
    assert result.returncode == 1
    assert "API_RATE " in result.stdout


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("foo", "must begin with postgres://"),
        ("sqlite:///x.db", "must begin with postgres://"),
        ("mysql://me:canary@db/x", "must begin with postgres://"),
        ("postgres://me:canary@db:port/x", "cannot be read"),
        ("postgres://me:canary@db", "names no database"),
    ],
)
def test_database_url_that_cannot_be_used_is_told_in_one_line(url: str, told: str) -> None:
    result = start(DATABASE_URL=url)
    (line,) = result.stdout.splitlines()
    assert (result.returncode, line.startswith(f"DATABASE_URL {told}")) == (1, True)
    assert "postgres://user:password@host:port/name" in line
    assert "canary" not in line
