"""Averages of points whose messages nobody has read, and nobody will: Kafka has deleted them, or the group's
position was set behind them.

They are made from price_points, at once and where they belong. Sent through Kafka again, they would come
after the messages that wait there, and averages in between would be of windows with holes.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import LiteralString
from uuid import UUID

import psycopg

from consumers.averages.connection import connect, time_limit
from consumers.repair.rebuild import RebuildError, rebuild_averages
from prices.database.uuid7 import first_id_at, time_of_id

# A published point without an average, the first one.
_FIRST_MISSING = """
SELECT id FROM price_points AS point
WHERE published_at IS NOT NULL AND id >= %s AND id < %s
  AND NOT EXISTS (SELECT FROM symbol_averages AS stored WHERE stored.event_id = point.id)
ORDER BY id LIMIT 1
"""
_FIRST_FROM = "SELECT id FROM price_points WHERE id >= %s AND id < %s ORDER BY id LIMIT 1"
# The search goes through the whole table, so much of it at a time, and each part ends by PostgreSQL's own
# time-out or, where its process stands still, by a cut connection.
_SEARCHED_AT_ONCE = timedelta(hours=6)
_SEARCH_TIMEOUT_S = 120
SEARCH_LIMIT_S = 125.0
_HAS_AVERAGES = "SELECT EXISTS (SELECT FROM symbol_averages)"
_REACHES_BACK = "SELECT EXISTS (SELECT FROM price_points WHERE published_at IS NOT NULL AND id < %s)"
# An id may lie so far ahead of its message's time.
AHEAD = timedelta(seconds=60)


class RecoveryError(Exception):
    """What is missing cannot be added now; another try may."""


def recover_averages(
    *, before: datetime, is_stopped: Callable[[], bool], is_first: bool = False
) -> int | None:
    """Add the averages of points published before a time, and of all since the first that lacks one.

    Return how many rows were added, or None where price_points has nothing of before that time, and with
    `is_first` also where there is no average yet. Raises RecoveryError where PostgreSQL goes away, where
    another rebuild is running, or where it was stopped.
    """
    try:
        with connect() as connection:
            connection.execute(f"SET transaction_timeout = '{_SEARCH_TIMEOUT_S}s'")
            if is_first and not _is_there(connection, _HAS_AVERAGES):
                return None
            if not _is_there(connection, _REACHES_BACK, first_id_at(before)):
                return None
            missing = _first_missing(connection, before=first_id_at(before + AHEAD), is_stopped=is_stopped)
        if missing is None:
            return 0
        rebuilt = rebuild_averages(since=time_of_id(missing), is_stopped=is_stopped)
    except (psycopg.OperationalError, psycopg.InterfaceError, RebuildError) as error:
        raise RecoveryError(str(error).partition("\n")[0]) from error
    if not rebuilt.is_complete:
        raise RecoveryError("stopped before the end")
    return rebuilt.inserted


def _first_missing(
    connection: psycopg.Connection, *, before: UUID, is_stopped: Callable[[], bool]
) -> UUID | None:
    since = UUID(int=0)
    while since < before:
        with time_limit(connection, seconds=SEARCH_LIMIT_S):
            first = _first_id(connection, _FIRST_FROM, since, before)
            if first is None:
                return None
            since = min(first_id_at(time_of_id(first) + _SEARCHED_AT_ONCE), before)
            missing = _first_id(connection, _FIRST_MISSING, first, since)
        if missing is not None:
            return missing
        if is_stopped():
            raise RecoveryError("stopped before the end")
    return None


def _first_id(connection: psycopg.Connection, query: LiteralString, *bounds: UUID) -> UUID | None:
    row = connection.execute(query, bounds).fetchone()
    return None if row is None else UUID(str(row[0]))


def _is_there(connection: psycopg.Connection, query: LiteralString, *arguments: UUID) -> bool:
    row = connection.execute(query, arguments).fetchone()
    return row is not None and bool(row[0])
