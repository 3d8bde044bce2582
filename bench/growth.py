"""A service that has just begun beside one with years of rows: `python -m bench growth`.

The rows come into partitions of days, as all tables had them before, and are measured so; then points and
averages are merged into months, beside one who writes, and are measured again.

latest         GET /prices/latest of a stored price
latest, late   the same of a symbol that has no price since long ago, as the table is asked
averages       GET /averages?symbol= of 10 rows
averages, late the same of a symbol whose newest row lies far back
newest         GET /averages/latest of 100 symbols with recent rows
jobs           GET /jobs of 10 active jobs
symbols        the first page of GET /symbols, and its search for a text that no symbol has
sweep          the outbox's look for what was not published
stream         the stream's look for what is new, while nothing is
cold           the consumer's read of the last points of 500 series that it has not cached
lists          the admin's first page of each table
searches       the admin's search of raw answers by symbol and by run, of points and averages by symbol
verify         verify_averages of one day
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.utils import timezone

from bench.growth_merge import merge_all
from bench.growth_rows import fill
from bench.machine import describe_machine
from bench.poll_jobs import make_jobs
from consumers.averages.connection import connect
from consumers.averages.statements import read_last_points
from consumers.repair.verify import verify_averages
from prices.database.uuid7 import first_id_at
from prices.latest.stored import stand_in
from prices.publishing.kafka_clients import make_admin
from prices.publishing.outbox import sweep
from prices.publishing.topic import ensure_topic
from prices.stream import reading

# What is large may take so much longer than what is small, or so many ms.
MOST_RATIO, FAST_ENOUGH_MS, LIST_MS = 1.5, 3.0, 200.0
ADMIN_TABLES = ("rawmarketdata", "pricepoint", "symbolaverage", "pollrun", "pollgap", "polljob")
Case = Callable[[], object]


@dataclass(frozen=True)
class Plan:
    """How much the large service holds, and how often each case is measured."""

    points: int
    days: int
    symbols: int
    rounds: int


def run(plan: Plan, *, json_file: Path | None) -> int:
    """Measure and print; return the exit code, 1 where a goal is missed."""
    _say(describe_machine())
    _say(f"{plan.points:,} points and averages of {plan.symbols} symbols over {plan.days} days\n")
    # A stored price is measured, not the simulated provider.
    settings.LATEST_REUSE_S = 86_400
    ensure_topic(make_admin())
    get_user_model().objects.create_superuser("bench", password="bench")
    make_jobs([60] * 10)
    now = timezone.now()
    _store_recent(plan.symbols, now=now)
    small = _measure(plan, _cases(plan, now=now))
    began = time.monotonic()
    fill(points=plan.points, days=plan.days, symbols=plan.symbols, now=now, say=_say)
    _say(f"filled in {time.monotonic() - began:.0f} s")
    _store_recent(plan.symbols, now=timezone.now())
    by_days = _measure(plan, _cases(plan, now=timezone.now()))
    merged = merge_all(days=plan.days)
    _say(f"{merged}\n")
    _store_recent(plan.symbols, now=timezone.now())
    large = _measure(plan, _cases(plan, now=timezone.now()))
    _say(_table(small, by_days, large))
    missed = [name for name in large if not _is_met(name, small[name], large[name])]
    if missed:
        _say(f"\ngoals missed: {', '.join(missed)}")
    if json_file:
        figures = {"small": small, "by days": by_days, "large": large, "missed": missed}
        about = {"machine": describe_machine(), "plan": asdict(plan), "merged": asdict(merged)}
        json_file.write_text(json.dumps(about | figures, indent=2))
    return 1 if missed else 0


_RECENT = """
WITH made AS MATERIALIZED (
    SELECT symbol, number, %(now)s::timestamptz - interval '1 second' * (12 - number) AS came
    FROM generate_series(1, %(symbols)s) AS symbol, generate_series(1, 10) AS number WHERE symbol %% 20 <> 7
), points AS (
    INSERT INTO price_points (id, symbol, provider, price, observed_at, currency, precision, received_at, raw,
                              published_at)
    SELECT uuidv7(came - clock_timestamp()), 'SIM-G' || symbol, 'simulated', 100, came, 'USD', 'second', came,
           uuidv7(), came
    FROM made RETURNING id, symbol, price, provider, observed_at
)
INSERT INTO symbol_averages (event_id, symbol, price, currency, average, window_size, provider, observed_at)
SELECT id, symbol, price, 'USD', 100, 5, provider, observed_at FROM points
"""


def _store_recent(symbols: int, *, now: datetime) -> None:
    """Store what the last seconds have brought, also to an empty service."""
    with connection.cursor() as cursor:
        cursor.execute(_RECENT, {"symbols": symbols, "now": now})
        cursor.execute("ANALYZE")


def _cases(plan: Plan, *, now: datetime) -> dict[str, Case]:
    client, admin = Client(SERVER_NAME="127.0.0.1"), Client(SERVER_NAME="127.0.0.1")
    admin.login(username="bench", password="bench")
    run_id = UUID(int=first_id_at(now - timedelta(days=3)).int | 1)
    series = [(f"SIM-G{number}", "USD") for number in range(1, plan.symbols + 1)]
    not_late = [f"SIM-G{number}" for number in range(1, plan.symbols + 1) if number % 20 != 7]

    def get(path: str, by: Client = client) -> Case:
        def ask() -> None:
            answer = by.get(path, secure=True)
            if answer.status_code != 200:
                raise SystemExit(f"{path} answers {answer.status_code}: {answer.content[:200]!r}")

        return ask

    opened = connect()

    def read_cold() -> None:
        with opened.transaction(), opened.cursor() as cursor:
            read_last_points(cursor, series, near=first_id_at(now), most=5)

    def look() -> None:
        reading.read_page(reading.newest_position(), symbols=None)

    pages = {f"list {name}": get(f"/admin/prices/{name}/", admin) for name in ADMIN_TABLES}
    searches = {
        "search raw by symbol": get("/admin/prices/rawmarketdata/?q=SIM-G17", admin),
        "search raw by run": get(f"/admin/prices/rawmarketdata/?q={run_id}", admin),
        "search points": get("/admin/prices/pricepoint/?q=SIM-G17", admin),
        "search averages": get("/admin/prices/symbolaverage/?q=SIM-G7", admin),
    }
    return {
        "latest": get("/prices/latest?symbol=SIM-G1&max_age=86400"),
        "latest, late": lambda: stand_in("SIM-G7", None, now=now),
        "averages": get("/averages?symbol=SIM-G1&limit=10"),
        "averages, late": get("/averages?symbol=SIM-G7&limit=10"),
        "averages of all": get("/averages?limit=10"),
        "newest": get(f"/averages/latest?symbols={','.join(not_late[:100])}"),
        "jobs": get("/jobs?limit=10"),
        "symbols": get("/symbols"),
        "symbols, none": get("/symbols?q=NOPE"),
        "sweep": sweep,
        "stream": look,
        "cold": read_cold,
        **pages,
        **searches,
    }


def _measure(plan: Plan, cases: Mapping[str, Case]) -> dict[str, float]:
    """Return the median of each case in milliseconds."""
    figures = {name: _median_ms(case, rounds=plan.rounds) for name, case in cases.items()}
    since = timezone.now() - timedelta(days=1)
    return figures | {"verify": _median_ms(lambda: verify_averages(since=since), rounds=1)}


def _median_ms(case: Case, *, rounds: int) -> float:
    case()
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        case()
        seconds.append(time.perf_counter() - began)
        # What takes long need not be asked so often.
        if sum(seconds) > 10:
            break
    return statistics.median(seconds) * 1000


def _is_met(name: str, small_ms: float, large_ms: float) -> bool:
    if name.startswith(("list", "search", "symbols")):
        return large_ms < LIST_MS
    return large_ms < max(MOST_RATIO * small_ms, FAST_ENOUGH_MS)


def _table(small: Mapping[str, float], by_days: Mapping[str, float], large: Mapping[str, float]) -> str:
    rows = [
        f"| {name} | {small[name]:.1f} | {by_days[name]:.1f} | {large[name]:.1f} |"
        f" {large[name] / small[name]:.1f} | {'' if _is_met(name, small[name], large[name]) else 'missed'} |"
        for name in large
    ]
    head = ["| median ms | small | large, by days | by months | ratio | goal |", "|---|---|---|---|---|---|"]
    return "\n".join([*head, *rows])


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
