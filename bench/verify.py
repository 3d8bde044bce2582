"""verify_averages at a million rows: `python -m bench verify`.

join         both tables joined by id and counted: the least that any comparison has to do
right        verify_averages, all rows right
wrong        one average in a hundred altered, in every symbol
holes        one row in a hundred lost, in every symbol
"""

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from django.db import connection

from bench.machine import describe_machine
from consumers.repair.verify import Verdict, verify_averages
from prices.publishing.kafka_clients import make_admin
from prices.publishing.topic import ensure_topic

CASES = ("join", "right", "wrong", "holes")
# Of those rows whose number ends so.
ONE_IN = 100


@dataclass(frozen=True)
class Plan:
    """How much is measured: rows in each table, of how many symbols, and how often."""

    rows: int
    symbols: int
    rounds: int


def run(plan: Plan, *, json_file: Path | None) -> None:
    """Measure and print; each round has all cases, so that a slow minute of the machine meets them all."""
    print(describe_machine())
    print(f"{plan.rows:,} points and rows of {plan.symbols} symbols, over 7 days, {plan.rounds} rounds\n")
    # An empty topic: all that was published is consumed, and what has no row is missing.
    ensure_topic(make_admin())
    _fill(plan)
    verify_averages()
    began_mb = _peak_mb()
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    for number in range(plan.rounds):
        _measure_round(plan, seconds)
        print(f"round {number + 1}: " + ", ".join(f"{name} {seconds[name][-1]:.1f} s" for name in CASES))
    print(f"\n{_table(seconds)}")
    grown_mb = _peak_mb() - began_mb
    print(f"\nPython's peak memory grew by {grown_mb:.1f} MB.")
    if json_file:
        plain = {"machine": describe_machine(), "plan": asdict(plan)}
        figures = plain | {"seconds": seconds, "grown_mb": grown_mb}
        json_file.write_text(json.dumps(figures, indent=2))


def _measure_round(plan: Plan, seconds: dict[str, list[float]]) -> None:
    seconds["join"].append(_timed(lambda: _execute(_JOIN)))
    seconds["right"].append(_timed(lambda: _verify(plan, {})))
    altered = _execute(f"UPDATE symbol_averages SET average = average + 1 WHERE {_CHOSEN}")
    seconds["wrong"].append(_timed(lambda: _verify(plan, {Verdict.WRONG: altered})))
    lost = _execute(f"DELETE FROM symbol_averages WHERE {_CHOSEN}")
    seconds["holes"].append(_timed(lambda: _verify(plan, {Verdict.MISSING: lost})))
    _execute(_AVERAGE)
    _tidy()


def _verify(plan: Plan, failed: dict[Verdict, int]) -> None:
    counts = verify_averages().counts
    expected = {Verdict.RIGHT: plan.rows - sum(failed.values())} | failed
    found = {verdict: count for verdict, count in counts.items() if count}
    # A benchmark of wrong answers would be worth nothing.
    if found != expected:
        raise SystemExit(f"verify_averages found {found} and not {expected}")


def _fill(plan: Plan) -> None:
    _execute("TRUNCATE price_points, symbol_averages")
    _execute(_POINTS, {"rows": plan.rows, "symbols": plan.symbols})
    _execute(_AVERAGE)
    _tidy()


def _tidy() -> None:
    _execute("VACUUM ANALYZE price_points, symbol_averages")
    _execute("CHECKPOINT")


def _execute(statement: str, arguments: dict[str, int] | None = None) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement, arguments)
        return int(cursor.rowcount)


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _table(seconds: dict[str, list[float]]) -> str:
    """Return the medians; the ratios are medians of each round's own ratio."""
    lines = [f"{'':8}{'seconds':>9}{'of join':>9}"]
    for name, taken in seconds.items():
        ratio = statistics.median(one / join for one, join in zip(taken, seconds["join"], strict=True))
        lines.append(f"{name:8}{statistics.median(taken):>9.1f}{ratio:>9.1f}")
    return "\n".join(lines)


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


_JOIN = "SELECT count(*) FROM symbol_averages FULL JOIN price_points ON id = event_id"

# The number of a point is in the end of its id; symbols and prices are picked by hashes of it.
_POINTS = """
INSERT INTO price_points (
    id, symbol, provider, price, observed_at, precision, received_at, raw, published_at
)
SELECT (lpad(to_hex(milliseconds), 12, '0') || '70008000' || lpad(to_hex(number), 12, '0'))::uuid,
       'SIM-' || lpad(((hashint4(number) & 2147483647) %% %(symbols)s)::text, 4, '0'), 'simulated',
       (1000 + (hashint4(-number) & 2147483647) %% 49000) * 0.01,
       moment, 'second', moment, '01900000-0000-7000-8000-000000000000', now()
FROM generate_series(1, %(rows)s) AS numbers (number)
CROSS JOIN LATERAL (
    SELECT date_trunc('day', now()) + interval '7 days' * number / (%(rows)s + 1)
) AS times (moment)
CROSS JOIN LATERAL (SELECT (extract(epoch FROM moment) * 1000)::int8) AS ids (milliseconds)
"""
_AVERAGE = """
INSERT INTO symbol_averages (event_id, symbol, price, average, window_size, provider, observed_at)
SELECT id, symbol, price, CASE WHEN count(*) OVER five = 5 THEN trim_scale(sum(price) OVER five * 0.2) END,
       count(*) OVER five, provider, observed_at
FROM price_points
WINDOW five AS (PARTITION BY symbol ORDER BY id ROWS BETWEEN 4 PRECEDING AND CURRENT ROW) ORDER BY id
ON CONFLICT (event_id) DO NOTHING
"""
_CHOSEN = f"average IS NOT NULL AND ('x' || right(event_id::text, 12))::bit(48)::int8 % {ONE_IN} = 0"
