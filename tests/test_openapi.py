"""The schema says what the service does: by schemathesis, and by a client that is generated from it."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from django.conf import settings

from prices.access.keys import create_key
from prices.models import PricePoint, Scope
from providers.simulator.simulator import Simulator
from tests.product import Product
from tests.simulator import pointing_at
from tests.stored_prices import store_prices
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
ROOT = Path(settings.BASE_DIR)
BIN = Path(sys.executable).parent
# A request that a limit refuses, or a busy machine, says nothing about the schema.
LIMITS = ["ALPHA_VANTAGE_BUDGET", "FINNHUB_BUDGET", "YAHOO_BUDGET", "API_RATE", "API_RATE_WITHOUT_KEY"]
NO_LIMITS = dict.fromkeys(LIMITS, "none") | dict.fromkeys(("LATEST_DEADLINE_S", "PROVIDER_TIMEOUT_S"), "60")
CLIENT = """
import sys
from uuid import UUID

from market_data import Client
from market_data.api.jobs import job
from market_data.api.prices import latest_price, poll_prices, stop_polling
from market_data.models import Accepted, JobDetail, JobStatus, Latest, PollRequest, Problem
from market_data.models import Stopped, StopRequest

with Client(sys.argv[1], raise_on_unexpected_status=True) as client:
    accepted = poll_prices.sync(client=client, body=PollRequest(["SIM-ACME"], 60), idempotency_key="1")
    assert isinstance(accepted, Accepted), accepted
    assert (accepted.status, accepted.config.symbols) == ("accepted", ["SIM-ACME"])

    read = job.sync(accepted.job_id, client=client)
    assert isinstance(read, JobDetail), read
    assert (read.job_id, read.status, read.interval) == (accepted.job_id, JobStatus.ACTIVE, 60)

    stopped = stop_polling.sync(client=client, body=StopRequest(accepted.job_id))
    assert isinstance(stopped, Stopped), stopped
    assert (stopped.job_id, stopped.status) == (accepted.job_id, "stopped")
    assert job.sync(accepted.job_id, client=client).status is JobStatus.STOPPED

    price = latest_price.sync(client=client, symbol="SIM-ACME")
    assert isinstance(price, Latest), price
    refused = job.sync(UUID(int=0), client=client)
    assert isinstance(refused, Problem), refused
    print(price.symbol, refused.type_)
"""


@pytest.fixture
def api_auth() -> str:
    return "open"


@pytest.fixture
def product(partitions: None, topic: str, tmp_path: Path, api_auth: str) -> Iterator[Product]:
    with Simulator() as simulator:
        running = Product(tmp_path, **pointing_at(simulator), **NO_LIMITS, API_AUTH=api_auth)
        try:
            running.start("web")
            wait_until(lambda: running.is_healthy("web"), what="web answers")
            store_prices()
            yield running
        finally:
            running.close()


def run_schemathesis(product: Product, *options: str) -> None:
    """Let all of its checks judge the answers to requests that the schema allows, and that it does not."""
    point = PricePoint.objects.latest("id")
    command = [str(BIN / "st"), "--config-file", "tests/schemathesis.toml", "run", *options]
    done = subprocess.run(
        [*command, f"http://{product.address}/api/schema"],
        cwd=ROOT,
        env={**os.environ, "EVENT_ID": str(point.id), "RAW_RESPONSE_ID": str(point.raw)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_the_schema_allows_is_taken_and_nothing_else(product: Product) -> None:
    run_schemathesis(product, "--seed", "1", "--max-examples", "3")


@pytest.mark.soak
@pytest.mark.parametrize("api_auth", ["open", "keys"])
def test_whatever_the_schema_allows_is_taken_and_nothing_else(
    product: Product, api_auth: str, pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = os.environ.get("SEED") or str(secrets.randbelow(10**6))
    with capsys.disabled():
        again = f"make soak SEED={seed} ARGS='-k whatever_the_schema'"
        pytestconfig.get_terminal_writer().line(f" schemathesis: {again}")
    key = create_key("schemathesis", [Scope.ADMIN], expires_at=None).text
    header = [] if api_auth == "open" else ["--header", f"Authorization: Bearer {key}"]
    run_schemathesis(product, "--seed", seed, "--max-examples", "300", *header)


def test_generated_client_makes_reads_and_stops_a_job(product: Product, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_bytes(requests.get(f"http://{product.address}/api/schema", timeout=60).content)
    options = tmp_path / "options.yaml"
    # JSON is YAML. What it would run afterwards makes the code pretty.
    options.write_text(json.dumps({"post_hooks": [], "package_name_override": "market_data"}))
    subprocess.run(
        [
            *(BIN / "openapi-python-client", "generate", "--fail-on-warning", "--meta", "none"),
            *("--path", schema, "--config", options, "--output-path", tmp_path / "market_data"),
        ],
        check=True,
    )
    told = subprocess.run(
        [sys.executable, "-c", CLIENT, f"http://{product.address}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.split() == ["SIM-ACME", "urn:marketdata:unknown-job"]
