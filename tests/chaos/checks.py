"""What must be true once a run is over. A check gives one text for each thing that is wrong."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from typing import LiteralString

from django.conf import settings
from django.core.management import CommandError, call_command

from tests.chaos.averages import wrong_averages
from tests.chaos.bars import wrong_bars
from tests.chaos.faults import CLOCK_AHEAD
from tests.chaos.log import Position
from tests.chaos.poison import Poison
from tests.chaos.slots import gaps_unsound, jobs_accounted_ahead, long_outages, slots_unaccounted
from tests.chaos.stream import stream_unlike_table
from tests.chaos.world import World


@dataclass(frozen=True, slots=True)
class Check:
    """A name, and what finds all that is wrong."""

    name: str
    find: Callable[[World], list[str]]


def rows_of(statement: LiteralString) -> Callable[[World], list[str]]:
    """Return a check of a query: each of its rows is wrong."""

    def find(world: World) -> list[str]:
        return [" ".join(map(str, row)) for row in world.database.rows(statement)]

    return find


def differences_told(_world: World) -> list[str]:
    """Return what `verify_averages` does not call right."""
    answer = StringIO()
    try:
        call_command("verify_averages", "--json", stdout=answer)
    except CommandError as error:
        if not answer.getvalue():
            raise AssertionError("verify_averages told nothing") from error
    told = json.loads(answer.getvalue())
    counts = {name: told[name] for name in ("wrong", "missing", "pending", "foreign", "unverifiable")}
    notes = [str(told["note"])] if told["note"] else []
    return notes + [name for name, number in counts.items() for _ in range(number)]


def letters_unexplained(world: World) -> list[str]:
    """Return dead letters that are no poison, or are not told as what they are.

    Where PostgreSQL's clock was ahead of Kafka's, those of points that were sent before anybody knew: the
    consumer refuses them, and the outbox sends them again in their time. That they are among the averages in
    the end, once, is looked at as for all points.
    """
    poison = _poison_in_log(world)
    points = _points_sent_early(world)
    found = []
    for where, key, value, reason in _letters(world):
        sent = poison.get(where)
        if sent is None and AHEAD in reason and _event_id(value) in points:
            continue
        if sent is None:
            found.append(f"{where}: {reason}")
        elif (sent.key, sent.value) != (key, value) or sent.reason not in reason:
            found.append(f"{where}: sent was {sent.kind}, told is {reason}")
    return found


def _points_sent_early(world: World) -> set[str]:
    if not world.injected[CLOCK_AHEAD]:
        return set()
    return {str(point_id) for (point_id,) in world.database.rows("SELECT id FROM price_points")}


def _event_id(value: bytes | None) -> str | None:
    event_id = json.loads(value or b"{}").get("event_id")
    return None if event_id is None else str(event_id)


def poison_unnoticed(world: World) -> list[str]:
    """Return poison of Kafka's log that is not among the dead letters exactly once, and what Kafka lost."""
    poison = _poison_in_log(world)
    letters = Counter(where for where, *_ in _letters(world))
    found = [
        f"{where}: {sent.kind}, {letters[where]} times"
        for where, sent in poison.items()
        if letters[where] != 1
    ]
    lost = world.traffic.confirmed_poison - {sent.key for sent in poison.values()}
    return found + [f"{key[:40]!r}: confirmed, and not in Kafka's log" for key in lost]


def _poison_in_log(world: World) -> dict[Position, Poison]:
    poison = world.traffic.poison
    return {where: poison[key] for where, (key, _) in world.log.items() if key in poison}


def _letters(world: World) -> list[tuple[Position, bytes | None, bytes | None, str]]:
    rows = world.database.rows(
        'SELECT partition, "offset", key, value, reason FROM dead_letters WHERE topic = %s',
        [settings.KAFKA_TOPIC],
    )
    return [((partition, offset), key, value, reason) for partition, offset, key, value, reason in rows]


def crashed(world: World) -> list[str]:
    """Return the processes that a signal of nobody's has ended, as a failed assertion of a library does."""
    return [name for name, times in world.fleet.revived.items() if CRASHED in name for _ in range(times)]


AHEAD = "ahead of the message's time"
CRASHED = "exit code -"
NOT_RECOVERED = "not recovered in time"
POINTS_MISSING = "points missing: published, without an average row"
AVERAGES_WRONG = "averages wrong by the definition"

_MISSING: LiteralString = """
    SELECT id, symbol FROM price_points
    WHERE published_at IS NOT NULL AND NOT EXISTS (SELECT FROM symbol_averages WHERE event_id = id)
"""
_FOREIGN: LiteralString = """
    SELECT event_id, symbol FROM symbol_averages
    WHERE NOT EXISTS (SELECT FROM price_points WHERE id = event_id)
"""
# Also where PostgreSQL's clock is set back: by up to 5 s nothing is polled again, and time that was lived
# through further ahead does not come back while there are jobs (tests/chaos/clocks.py).
_FETCHED_TWICE: LiteralString = """
    SELECT poll, symbol, count(*) FROM raw_market_data, unnest(symbols) symbol
    WHERE poll IS NOT NULL GROUP BY poll, symbol HAVING count(*) > 1
"""
# A request that several jobs share names one run only. So for a symbol that one job alone polls: at most
# one request for each run that was stored or given up; and where the job polls nothing else, one for each
# that was stored.
_REQUESTS_AND_SLOTS: LiteralString = """
    WITH owned AS (
        SELECT symbol, (array_agg(id))[1] AS job_id, min(cardinality(symbols)) AS symbols
        FROM poll_jobs, unnest(symbols) symbol GROUP BY symbol HAVING count(*) = 1
    ), fetched AS (
        SELECT symbol, count(*) AS requests FROM raw_market_data, unnest(symbols) symbol GROUP BY symbol
    ), polled AS (
        SELECT job_id, count(*) FILTER (WHERE state = 'stored') AS stored,
               count(*) FILTER (WHERE state IN ('abandoned', 'failed')) AS given_up
        FROM poll_runs GROUP BY job_id
    )
    SELECT symbol, coalesce(requests, 0), 'requests', stored, 'stored', given_up, 'given up'
    FROM owned JOIN polled USING (job_id) LEFT JOIN fetched USING (symbol)
    WHERE coalesce(requests, 0) > stored + given_up OR (symbols = 1 AND coalesce(requests, 0) < stored)
"""
_UNCLAIMED: LiteralString = """
    SELECT raw.id, raw.poll FROM raw_market_data raw LEFT JOIN poll_runs run ON run.id = raw.poll
    WHERE run.id IS NULL
"""
_CLAIMED_TWICE: LiteralString = """
    SELECT job_id, due_at FROM (
        SELECT job_id, due_at, due_at - lag(due_at) OVER (PARTITION BY job_id ORDER BY due_at) AS step
        FROM poll_runs
    ) run JOIN poll_jobs job ON job.id = job_id WHERE step < make_interval(secs => job.interval)
"""
_LOST: LiteralString = """
    SELECT raw.id, quote ->> 'symbol', count(point.id), 'points' FROM raw_market_data raw
    CROSS JOIN jsonb_array_elements(raw.payload -> 'quotes') quote
    LEFT JOIN price_points point ON point.raw = raw.id AND point.symbol = quote ->> 'symbol'
        AND point.price = (quote ->> 'price')::numeric
    WHERE raw.outcome = 'quote' GROUP BY 1, 2 HAVING count(point.id) <> 1
"""
_ANSWERS_INCOMPLETE: LiteralString = """
    SELECT id, outcome, message FROM raw_market_data
    WHERE outcome <> 'quote' OR jsonb_array_length(payload -> 'quotes') <> cardinality(symbols)
"""

CHECKS = [
    Check(NOT_RECOVERED, lambda world: world.unreached),
    Check("processes that crashed", crashed),
    Check(POINTS_MISSING, rows_of(_MISSING)),
    Check("average rows without a point", rows_of(_FOREIGN)),
    Check(AVERAGES_WRONG, wrong_averages),
    Check("averages not right by verify_averages", differences_told),
    Check("bars wrong by the definition", wrong_bars),
    Check("rows that the stream's client has not, or twice", stream_unlike_table),
    Check("slots fetched twice for a symbol", rows_of(_FETCHED_TWICE)),
    Check("symbols with more or fewer requests than slots", rows_of(_REQUESTS_AND_SLOTS)),
    Check("requests without a claimed slot", rows_of(_UNCLAIMED)),
    Check("slots claimed twice", rows_of(_CLAIMED_TWICE)),
    Check("slots without a run, and in no gap", slots_unaccounted),
    Check("gaps that are not right", gaps_unsound),
    Check("jobs accounted for beyond their end", jobs_accounted_ahead),
    Check("answers without all their quotes", rows_of(_ANSWERS_INCOMPLETE)),
    Check("prices not stored once as a point", rows_of(_LOST)),
    Check("dead letters unexplained", letters_unexplained),
    Check("poison not once among the dead letters", poison_unnoticed),
]
# For a run in which nothing but beats is struck, one at a time.
BEAT_CHECKS = [*CHECKS, Check("outages longer than a takeover", long_outages)]
