"""What went wrong at each provider in the last hour, by what was stored."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection

from prices.database.uuid7 import CLOCKS_AGREE_WITHIN, first_id_at
from prices.models.raw_market_data import Outcome

LOOKED_BACK = timedelta(hours=1)
# Of more than these, the newest are counted: a page must not read a million rows.
MOST_REQUESTS = 5_000
MOST_RUNS = 10_000

_WORDS = {
    Outcome.UNKNOWN_SYMBOL: "does not know the symbol",
    Outcome.RATE_LIMITED: "refused: too many requests",
    Outcome.INVALID_KEY: "refused the key",
    Outcome.NOT_ENTITLED: "not in the plan of the key",
    Outcome.UPSTREAM_ERROR: "no answer, or an error",
    Outcome.MALFORMED: "an answer that cannot be read",
}

# The bounds of the ids leave out partitions of other days, and rows of a clock that was ahead.
_REQUESTS = """
    SELECT provider, outcome, count(*), max(received_at),
           (array_agg(message ORDER BY id DESC))[1], (array_agg(symbols[1] ORDER BY id DESC))[1],
           sum(count(*)) OVER (PARTITION BY provider)
    FROM unnest(%(providers)s::text[]) AS wanted (provider)
    CROSS JOIN LATERAL (
        SELECT id, outcome, received_at, message, symbols FROM raw_market_data
        WHERE provider = wanted.provider AND id >= %(first)s AND id < %(end)s
        ORDER BY id DESC LIMIT %(most)s
    ) AS newest
    GROUP BY provider, outcome
    ORDER BY max(received_at) DESC
"""
# What was asked and failed has its answers above; these were not asked, or nobody knows.
_RUNS = """
    SELECT coalesce(job.provider, job.served_by), state, count(*), max(finished_at),
           (array_agg(run.reason ORDER BY run.id DESC))[1]
    FROM (
        SELECT id, job_id, state, reason, finished_at FROM poll_runs
        WHERE id >= %(first)s AND id < %(end)s
        ORDER BY id DESC LIMIT %(most)s
    ) AS run
    JOIN poll_jobs job ON job.id = run.job_id
    WHERE run.state IN ('skipped', 'abandoned')
    GROUP BY 1, state, split_part(run.reason, ':', 1)
    ORDER BY max(finished_at) DESC
"""
_RUN_WORDS = {"skipped": "polls left out", "abandoned": "polls whose worker ended"}


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that went wrong `count` times: what, when last, and what was said then."""

    kind: str
    words: str
    count: int
    last_at: datetime
    message: str
    symbol: str = ""


@dataclass(frozen=True, slots=True)
class LastHour:
    """The requests of the last hour, or the newest of them where `is_cut`, and what went wrong."""

    requests: int = 0
    is_cut: bool = False
    faults: Sequence[Fault] = ()


def read_last_hour(providers: Sequence[str], *, now: datetime) -> Mapping[str, LastHour]:
    """Return what became of each provider's requests and polls in the last hour. Two queries."""
    bounds = {
        "first": first_id_at(now - LOOKED_BACK),
        "end": first_id_at(now + CLOCKS_AGREE_WITHIN),
    }
    requests: dict[str, int] = {}
    faults: defaultdict[str, list[Fault]] = defaultdict(list)
    asked = {"providers": list(providers), "most": MOST_REQUESTS}
    for provider, outcome, count, last_at, message, symbol, total in _rows(_REQUESTS, bounds | asked):
        requests[provider] = int(total)
        if outcome != Outcome.QUOTE:
            words = _WORDS[Outcome(outcome)]
            faults[provider].append(Fault(outcome, words, count, last_at, message, symbol or ""))
    for provider, state, count, last_at, reason in _rows(_RUNS, bounds | {"most": MOST_RUNS}):
        faults[provider].append(Fault(state, _RUN_WORDS[state], count, last_at, reason))
    return {
        name: LastHour(requests.get(name, 0), requests.get(name, 0) == MOST_REQUESTS, tuple(faults[name]))
        for name in providers
    }


def _rows(statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return list(cursor.fetchall())
