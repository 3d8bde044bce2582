"""Two years' worth of rows, made in SQL: points and averages, raw answers, runs, stopped jobs, batches."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, LiteralString

from django.db import connection

from bench.growth_merge import make_days

# So long in the past is the newest of these rows: what is measured is newer.
AGE = timedelta(hours=1)
RAW_ANSWERS = 1_000_000
RUNS_A_DAY, RUN_DAYS = 100_000, 7
STOPPED_JOBS = 100_000
BEAT_TERMS = 10_000
AVERAGE_BATCHES = 1_000_000

# Ids are of the moment at which each point came, as PostgreSQL makes them. One symbol in twenty came to its
# end on the way: its newest point lies far back.
_ONE_DAY: LiteralString = """
WITH made AS MATERIALIZED (
    SELECT symbol, number, %(begin)s::timestamptz
           + (interval '1 day' / %(each)s) * (number - 1) + interval '7 ms' * symbol AS came
    FROM generate_series(1, %(symbols)s) AS symbol, generate_series(1, %(each)s) AS number
    WHERE symbol %% 20 <> 7 OR %(day)s < %(days)s * (symbol %% 100) / 100
), priced AS MATERIALIZED (
    SELECT uuidv7(came - clock_timestamp()) AS id, 'SIM-G' || symbol AS name, came,
           %(day)s * %(each)s + number AS n, 100 + symbol AS base
    FROM made
), stored AS (
    INSERT INTO price_points (id, symbol, provider, price, currency, observed_at, precision, received_at, raw,
                              published_at)
    SELECT id, name, 'simulated', base + (n * 7919 %% 1000) * 0.0125, 'USD', date_trunc('second', came),
           'second', came, id, came + interval '20 ms'
    FROM priced ORDER BY id
)
INSERT INTO symbol_averages (event_id, symbol, price, average, window_size, provider, observed_at, currency,
                             created_at)
SELECT id, name, base + (n * 7919 %% 1000) * 0.0125,
       CASE WHEN n >= 5 THEN base + ((n * 7919 %% 1000) + ((n - 1) * 7919 %% 1000) + ((n - 2) * 7919 %% 1000)
            + ((n - 3) * 7919 %% 1000) + ((n - 4) * 7919 %% 1000)) * 0.0025 END,
       least(n, 5), 'simulated', date_trunc('second', came), 'USD', came
FROM priced ORDER BY id
"""
_RAW: LiteralString = """
INSERT INTO raw_market_data (id, poll, provider, symbols, url, status, outcome, message, payload, received_at,
                             latency_ms)
SELECT uuidv7(came - clock_timestamp()), uuidv7(came - clock_timestamp()), 'simulated',
       ARRAY['SIM-G' || 1 + number %% %(symbols)s], 'http://127.0.0.1/quote', 200, 'quote', '',
       '{"price": "101.25", "currency": "USD"}', came, 12.5
FROM (SELECT number, %(begin)s::timestamptz + interval '1 day' * number / %(each)s AS came
      FROM generate_series(0, %(each)s - 1) AS number) AS made
"""
_RUNS: LiteralString = """
INSERT INTO poll_runs (id, job_id, due_at, state, reason, points, started_at, finished_at)
SELECT uuidv7(due - clock_timestamp()), jobs.id, due, 'stored', '', 1, due, due + interval '30 ms'
FROM (SELECT number, %(begin)s::timestamptz + interval '1 day' * number / %(each)s AS due
      FROM generate_series(0, %(each)s - 1) AS number) AS made
JOIN (SELECT id, row_number() OVER (ORDER BY id) AS rank FROM poll_jobs WHERE status = 'active') AS jobs
     ON jobs.rank = 1 + number %% (SELECT count(*) FROM poll_jobs WHERE status = 'active')
"""
_STOPPED: LiteralString = """
WITH tasks AS (
    INSERT INTO django_celery_beat_periodictask (name, task, args, kwargs, enabled, one_off, total_run_count,
        date_changed, description, headers, interval_id)
    SELECT 'long ago ' || number, 'prices.tasks.poll_job', '[]', '{}', false, false, 0, now(), '', '{}',
           (SELECT min(id) FROM django_celery_beat_intervalschedule)
    FROM generate_series(1, %(count)s) AS number
    RETURNING id
)
INSERT INTO poll_jobs (id, symbols, interval, provider, status, created_at, last_error, failures,
                       accounted_until, periodic_task_id)
SELECT uuidv7(interval '-200 days'), ARRAY['SIM-OLD'], 60, 'simulated', 'stopped',
       now() - interval '200 days',
       '', 0, now() - interval '199 days', id
FROM tasks
"""
_TERMS: LiteralString = """
INSERT INTO beat_terms (holder, began_at, renewed_at, until)
SELECT 'long ago', moment, moment + interval '50 minutes', moment + interval '51 minutes'
FROM generate_series(1, %(count)s) AS number,
     LATERAL (SELECT now() - interval '1 hour' * (number + 1)) AS made (moment)
"""
# Of transactions before all others: their numbers only have to be old.
_BATCHES: LiteralString = """
INSERT INTO average_batches (tx, number, first_id, last_id, rows, added, changed, written_at)
SELECT -number, 0, uuidv7(age), uuidv7(age), 20, '{}', '{}', now() + age
FROM generate_series(1, %(count)s) AS number, LATERAL (SELECT interval '-1 second' * number / 2) AS made (age)
"""


def fill(*, points: int, days: int, symbols: int, now: datetime, say: Callable[[str], None]) -> None:
    """Store about so many points and averages of the symbols over the last days, and all else of years."""
    first = (now - AGE - timedelta(days=days)).date()
    make_days(first, before=now.date())
    each = points // days // symbols
    for day in range(days):
        moment = now - AGE - timedelta(days=days - day)
        common = {"begin": moment, "symbols": symbols, "day": day, "days": days}
        _execute(_ONE_DAY, common | {"each": each})
        _execute(_RAW, common | {"each": RAW_ANSWERS // days})
        if days - day <= RUN_DAYS:
            _execute(_RUNS, common | {"each": RUNS_A_DAY})
        if day % 50 == 49:
            say(f"{day + 1} of {days} days are stored")
    _execute(_STOPPED, {"count": STOPPED_JOBS})
    _execute(_TERMS, {"count": BEAT_TERMS})
    _execute(_BATCHES, {"count": AVERAGE_BATCHES})
    _execute("VACUUM ANALYZE", {})


def _execute(statement: LiteralString, arguments: Mapping[str, Any]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, arguments or None)
