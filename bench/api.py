"""REST calls against a bare Django view that does one Redis read: `python -m bench api`.

The service's web process, as the Procfile has it, with all its middleware; the bare views are Django
without middleware, on granian's WSGI with 16 threads. wrk keeps 16 connections busy. The cases alternate,
round by round, with the view that they are measured against; then the first once more while jobs are polled.

latest      GET /prices/latest of a stored price, 500 symbols in turn
batch       GET /prices/latest of 100 symbols, five hundreds in turn
jobs        GET /jobs of 10 active jobs
history     GET /prices/history?limit=1000, against psycopg's own read of a thousand rows, encoded
averages    GET /averages?limit=1000, against the same
unchanged   GET /averages of 500 symbols in turn, whose ETag the client has: 304
"""

import json
import os
import statistics
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path

import redis
from django.conf import settings
from django.db import connection
from django.utils import timezone

from bench.machine import describe_machine
from bench.poll_jobs import make_jobs
from bench.service import Service
from bench.wrk import Load, load
from dev.embedded.ports import free_port
from prices.publishing.kafka_clients import make_admin
from prices.publishing.topic import ensure_topic

BARE_KEY = "bench:bare"
READY_WITHIN_S = 60
WARM_UP_S = 2
REDIS, ROWS = "/redis", "/rows"
_GRANIAN = (
    "granian --interface wsgi --host 127.0.0.1 --workers 1 --blocking-threads 16 --backlog 1024 --no-ws"
    " --no-access-log --log-level error"
)
_PRICES = """
WITH made AS MATERIALIZED (
    SELECT symbol, number, %(now)s::timestamptz - interval '1 second' * (21 - number) AS came
    FROM generate_series(1, %(symbols)s) AS symbol, generate_series(1, 20) AS number
), points AS (
    INSERT INTO price_points (id, symbol, provider, price, observed_at, currency, precision, received_at, raw,
                              published_at)
    SELECT uuidv7(came - clock_timestamp()), 'SIM-A' || symbol, 'simulated',
           100 + symbol * 0.37 + number * 0.0125, came, 'USD', 'second', came, uuidv7(), came
    FROM made RETURNING id, symbol, price, provider, observed_at
)
INSERT INTO symbol_averages (event_id, symbol, price, currency, average, window_size, provider, observed_at)
SELECT id, symbol, price, 'USD', price + 0.0025, 5, provider, observed_at FROM points
"""


@dataclass(frozen=True)
class Case:
    """Addresses that are asked for in turn, the view they are measured against, and what is to be reached.

    `rate`: answers a second over the view's; `p99`: the 99th percentile over the view's. `is_known`: each is
    asked for with the ETag of its answer.
    """

    addresses: Sequence[str]
    against: str
    rate: float
    p99: float | None = None
    is_known: bool = False


@dataclass(frozen=True)
class Plan:
    """How long and how often each case is measured; `polls` jobs are polled each second afterwards."""

    seconds: int
    rounds: int
    symbols: int
    polls: int
    cases: Sequence[str]


def cases_of(symbols: int) -> dict[str, Case]:
    """Return what is measured."""
    names = [f"SIM-A{number}" for number in range(1, symbols + 1)]
    hundreds = [names[begin : begin + 100] for begin in range(0, symbols, 100)]
    return {
        "latest": Case([f"/prices/latest?symbol={name}" for name in names], REDIS, rate=0.75, p99=1.5),
        "batch": Case([f"/prices/latest?symbols={','.join(some)}" for some in hundreds], REDIS, rate=0.25),
        "jobs": Case(["/jobs?limit=10"], REDIS, rate=0.3),
        "history": Case(["/prices/history?limit=1000"], ROWS, rate=0.5),
        "averages": Case(["/averages?limit=1000"], ROWS, rate=0.5),
        "unchanged": Case(
            [f"/averages?symbol={name}&limit=10" for name in names], REDIS, rate=0.75, is_known=True
        ),
    }


def run(plan: Plan, *, json_file: Path | None) -> int:
    """Measure and print; return the exit code, 1 where a goal is missed."""
    _say(f"{describe_machine()}\n")
    ensure_topic(make_admin())
    make_jobs([60] * 10)
    with connection.cursor() as cursor:
        cursor.execute(_PRICES, {"symbols": plan.symbols, "now": timezone.now()})
        cursor.execute("ANALYZE")
    # A stored price is measured, not a provider.
    os.environ |= {
        "LATEST_REUSE_S": "3600",
        "HTTPS_ONLY": "false",
        "BARE_KEY": BARE_KEY,
        "PORT": str(free_port()),
    }
    _store_value()
    with tempfile.TemporaryDirectory() as folder, Service(Path(folder)) as service:
        ports = {"web": int(os.environ["PORT"]), "bare": free_port()}
        service.start("web")
        service.start("bare", command=f"{_GRANIAN} --port {ports['bare']} bench.bare:application")
        _wait_until_ready(
            service, [f"http://127.0.0.1:{ports['web']}/livez", f"http://127.0.0.1:{ports['bare']}{REDIS}"]
        )
        found = cases_of(plan.symbols)
        idle = {name: _measure(plan, found[name], ports) for name in plan.cases}
        _say(_table(idle, found))
        busy = _measure_busy(plan, found, ports, service) if plan.polls else {}
    missed = [name for name, figures in idle.items() if not _is_met(figures, found[name])]
    _say(f"\ngoals missed: {', '.join(missed) or 'none'}")
    if json_file:
        told = {
            "machine": describe_machine(),
            "plan": asdict(plan),
            "idle": _plain(idle),
            "polling": _plain(busy),
        }
        json_file.write_text(json.dumps(told | {"missed": missed}, indent=2))
    return 1 if missed else 0


@dataclass(frozen=True)
class Compared:
    """Medians of the rounds: the service's, and the view's that it is measured against."""

    own: Load
    bare: Load
    rate_ratio: float
    p99_ratio: float


def _measure(plan: Plan, case: Case, ports: Mapping[str, int]) -> Compared:
    addresses = case.addresses
    if case.is_known:
        addresses = [_with_its_tag(ports["web"], address) for address in addresses]
    load(ports["web"], addresses, seconds=WARM_UP_S)
    load(ports["bare"], [case.against], seconds=WARM_UP_S)
    own, bare = [], []
    for _ in range(plan.rounds):
        bare.append(load(ports["bare"], [case.against], seconds=plan.seconds))
        own.append(load(ports["web"], addresses, seconds=plan.seconds))
    pairs = list(zip(own, bare, strict=True))
    return Compared(
        _median(own),
        _median(bare),
        statistics.median(one.per_second / other.per_second for one, other in pairs),
        statistics.median(one.p99_ms / other.p99_ms for one, other in pairs),
    )


def _measure_busy(
    plan: Plan, found: Mapping[str, Case], ports: Mapping[str, int], service: Service
) -> dict[str, Compared]:
    make_jobs([1] * plan.polls)
    for name in ("maintenance", "poller-simulated", "beat"):
        service.start(name)
    time.sleep(10)
    service.check()
    busy = {"latest": _measure(plan, found["latest"], ports)}
    _say(f"\nWhile {plan.polls} jobs are polled each second:\n{_table(busy, found)}")
    return busy


def _with_its_tag(port: int, address: str) -> str:
    """Return an address with the header that has it answered with 304, as `load` takes it."""
    url = f"http://127.0.0.1:{port}{address}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        header = "If-None-Match", answer.headers["ETag"]
    try:
        urllib.request.urlopen(urllib.request.Request(url, headers=dict([header])), timeout=30).close()
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.NOT_MODIFIED:
            return f"{address}\t{': '.join(header)}"
        raise
    raise SystemExit(f"{address} is answered in full to who has it")


def _store_value() -> None:
    value = {"symbol": "SIM-A1", "price": 101.5, "timestamp": "2026-01-01T00:00:00Z", "provider": "simulated"}
    redis.Redis.from_url(settings.REDIS_URL).set(BARE_KEY, json.dumps(value))


def _wait_until_ready(service: Service, addresses: Sequence[str]) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    for address in addresses:
        while True:
            service.check()
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise SystemExit(f"{address} does not answer") from None
                time.sleep(0.1)


def _median(loads: Sequence[Load]) -> Load:
    return Load(
        statistics.median(one.per_second for one in loads),
        statistics.median(one.median_ms for one in loads),
        statistics.median(one.p99_ms for one in loads),
        sum(one.errors for one in loads),
    )


def _is_met(figures: Compared, case: Case) -> bool:
    slow = case.p99 is not None and figures.p99_ratio > case.p99
    return figures.rate_ratio >= case.rate and not slow and not figures.own.errors


def _table(figures: Mapping[str, Compared], found: Mapping[str, Case]) -> str:
    rows = [
        f"| {name} | {one.bare.per_second:,.0f} | {one.own.per_second:,.0f} | {one.rate_ratio:.2f} |"
        f" {found[name].rate} | {one.bare.p99_ms:.1f} | {one.own.p99_ms:.1f} | {one.p99_ratio:.2f} |"
        f" {found[name].p99 or ''} | {one.own.errors} |"
        for name, one in figures.items()
    ]
    head = "| case | view /s | own /s | ratio | goal | view p99 ms | own p99 ms | ratio | goal | errors |"
    return "\n".join([head, "|---|---|---|---|---|---|---|---|---|---|", *rows])


def _plain(figures: Mapping[str, Compared]) -> dict[str, object]:
    return {name: asdict(one) for name, one in figures.items()}


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
