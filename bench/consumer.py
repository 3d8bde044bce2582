"""The consumer against the limit that PostgreSQL sets: `python -m bench consumer`.

limit        binary COPY of ready-made rows into the same table, 5,000 a commit
sorted       the same, sorted by symbol within each commit
large        as `limit`, with as many rows a commit as the consumer's largest batch has
large sorted the same, sorted by symbol within each commit
one          one consumer, from its first message to the last row committed
disordered   the same with 5 % duplicates and 2 % late events
unusual      the same with one message in ten that the fast way of reading refuses
few, many    as `one`, of 500 and of 50,000 symbols
two          two consumers in the group
steady       one consumer at 1,000 events a second: from the send to the commit of the row
"""

import json
import statistics
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from django.db import connection

from bench.copy_limit import copy_all, read_commits
from bench.events import Event, disordered, fill_topic, make_events, unusual
from bench.machine import describe_machine
from bench.processes import Consumed, consume
from bench.steady import Latency, measure_latency
from consumers.reading.pipeline import MAX_BATCH

Change = Callable[[Iterator[Event]], Iterator[Event]]
# Rows a commit, and whether they are sorted by symbol.
LIMITS = {
    "limit": (5_000, False),
    "sorted": (5_000, True),
    "large": (MAX_BATCH, False),
    "large sorted": (MAX_BATCH, True),
}
# Of what its topic is made, besides the plan's own symbols.
CASES: dict[str, tuple[int | None, Change]] = {
    "one": (None, iter),
    "disordered": (None, disordered),
    "unusual": (None, unusual),
    "few": (500, iter),
    "many": (50_000, iter),
}
NAMES = (*LIMITS, *CASES, "two")


@dataclass(frozen=True)
class Plan:
    """How much is measured: events, of how many symbols, how often, and how long at a steady rate."""

    events: int
    symbols: int
    rounds: int
    steady_s: int


@dataclass(frozen=True)
class Topic:
    """A filled topic: how many messages it holds."""

    name: str
    messages: int


def run(plan: Plan, *, json_file: Path | None) -> None:
    """Measure and print; each round has all, so that a slow minute of the machine meets them all."""
    print(describe_machine())
    print(f"{plan.events:,} events of {plan.symbols:,} symbols, 12 partitions, {plan.rounds} rounds\n")
    topics = _fill(plan)
    _measure_consumer(plan, topics["one"], processes=1)
    commits = {
        name: read_commits(rows_a_commit=rows, by_symbol=by_symbol)
        for name, (rows, by_symbol) in LIMITS.items()
    }
    figures: dict[str, list[Consumed]] = {name: [] for name in NAMES}
    for number in range(plan.rounds):
        for name in LIMITS:
            figures[name].append(_measure_limit(plan, commits[name]))
        for name, topic in topics.items():
            figures[name].append(_measure_consumer(plan, topic, processes=1))
        figures["two"].append(_measure_consumer(plan, topics["one"], processes=2))
        print(_round(number + 1, {name: found[-1] for name, found in figures.items()}))
    print(f"\n{_table(figures)}")
    latency = _steady(plan) if plan.steady_s else None
    if json_file:
        json_file.write_text(json.dumps(_as_json(plan, figures, latency), indent=2))


def _fill(plan: Plan) -> dict[str, Topic]:
    end = datetime.now(UTC)

    def fill(name: str, symbols: int, change: Change) -> Topic:
        topic = f"bench-{name}-{uuid.uuid4().hex[:8]}"
        return Topic(topic, fill_topic(topic, change(make_events(plan.events, symbols=symbols, end=end))))

    return {name: fill(name, symbols or plan.symbols, change) for name, (symbols, change) in CASES.items()}


def _measure_limit(plan: Plan, commits: list[bytes]) -> Consumed:
    _empty()
    return Consumed(events=plan.events, seconds=copy_all(commits), cpu_s=None, peak_mb=None)


def _measure_consumer(plan: Plan, topic: Topic, *, processes: int) -> Consumed:
    _empty()
    found = consume(topic.name, messages=topic.messages, processes=processes)
    _check(plan.events)
    return found


def _empty() -> None:
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE symbol_averages, dead_letters")
        cursor.execute("CHECKPOINT")


_WRONG = """
WITH windowed AS (
    SELECT average, window_size, count(*) OVER five AS points, sum(price) OVER five * 0.2 AS mean
    FROM symbol_averages
    WINDOW five AS (
        PARTITION BY symbol, currency ORDER BY event_id ROWS BETWEEN 4 PRECEDING AND CURRENT ROW
    )
)
SELECT count(*), count(*) FILTER (
    WHERE (window_size, average) IS DISTINCT FROM (points, CASE WHEN points = 5 THEN mean END)
) FROM windowed
"""


def _check(events: int) -> None:
    # A benchmark of wrong rows would be worth nothing.
    with connection.cursor() as cursor:
        cursor.execute(_WRONG)
        rows, wrong = cursor.fetchone()
    if (rows, wrong) != (events, 0):
        raise SystemExit(f"{rows:,} rows of {events:,} are there, and {wrong:,} of them are wrong")


def _steady(plan: Plan) -> Latency:
    _empty()
    latency = measure_latency(rate=1_000, seconds=plan.steady_s, symbols=plan.symbols)
    print(
        f"\nsteady: 1,000 events/s for {plan.steady_s} s, from the send to the commit:"
        f" p50 {latency.p50_ms:.0f} ms, p99 {latency.p99_ms:.0f} ms, most {latency.most_ms:.0f} ms"
    )
    return latency


def _round(number: int, found: dict[str, Consumed]) -> str:
    limit = found["limit"].rate
    parts = [f"{name} {figure.rate:,.0f}/s ({figure.rate / limit:.2f})" for name, figure in found.items()]
    return f"round {number}: {', '.join(parts)}"


def _table(figures: dict[str, list[Consumed]]) -> str:
    """Return the medians; the ratios are medians of each round's own ratio."""
    lines = [
        f"{'':12}{'events/s':>12}{'of limit':>10}{'of large':>10}{'of one':>9}{'CPU s':>9}{'peak MB':>9}"
    ]
    for name, found in figures.items():
        ratios = [_ratio(found, figures[other]) for other in ("limit", "large", "one")]
        used = [_median(found, lambda one: one.cpu_s), _median(found, lambda one: one.peak_mb)]
        lines.append(
            f"{name:12}{_median(found, lambda one: one.rate):>12,.0f}"
            + "".join(f"{ratio:>10.2f}" for ratio in ratios)
            + "".join(f"{'-':>10}" if value is None else f"{value:>10.1f}" for value in used)
        )
    return "\n".join(lines)


def _ratio(found: list[Consumed], others: list[Consumed]) -> float:
    return statistics.median(one.rate / other.rate for one, other in zip(found, others, strict=True))


def _median(found: list[Consumed], value: Callable[[Consumed], float | None]) -> float | None:
    values = [number for one in found if (number := value(one)) is not None]
    return statistics.median(values) if values else None


def _as_json(plan: Plan, figures: dict[str, list[Consumed]], latency: Latency | None) -> dict[str, object]:
    return {
        "machine": describe_machine(),
        "plan": asdict(plan),
        "rounds": {name: [_figure(one) for one in found] for name, found in figures.items()},
        "latency": asdict(latency) if latency else None,
    }


def _figure(one: Consumed) -> dict[str, float | None]:
    return asdict(one) | {"rate": one.rate}
