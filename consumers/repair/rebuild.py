"""symbol_averages from price_points, while consumers go on.

The work is cut into chunks, each a part of one symbol's ids and a transaction of its own that holds the
locks that a consumer holds for that symbol. A chunk leaves every row right that it looked at, and the four
after it, so the rebuild can end after any of them. It raises the epoch where it changed a row: a consumer
compares the epoch once it has the locks, and drops what it remembers.

Published points without a row get theirs here, also those that a consumer is about to read: for it they
are duplicates then. Points that are not published yet are left to the consumer.

The consumer has that done (`recover_averages`) for points whose messages nobody has read, and nobody will:
Kafka has deleted them, or the group's position was set behind them. Sent through Kafka again, they would come
after the messages that wait there, and averages in between would be of windows with holes.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import LiteralString
from uuid import UUID

import psycopg
from psycopg import Connection, errors

from consumers.averages.batches import Written, note_written
from consumers.averages.connection import connect
from consumers.averages.statements import NO_ID, lock_symbols
from consumers.repair.rebuild_sql import (
    Span,
    correct,
    move_misfiled,
    plan_corrections,
    read_end,
    read_misfiled,
    read_newest_id,
    read_symbols,
    use_one_plan,
)
from prices.database.time_limit import time_limit
from prices.database.uuid7 import first_id_at, time_of_id

# A consumer waits for a chunk at most so long: longer ones are broken off, and tried again with less.
MOST_CHUNK_S = 0.4
AIM_CHUNK_S = 0.15
FIRST_ROWS, LEAST_ROWS, MOST_ROWS = 500, 8, 20_000
# Each is moved by statements of its own.
MAX_MISFILED = 8
MOST_TRIES = 10
# A rebuild that is stopped in the middle of a chunk must not keep consumers waiting.
TRANSACTION_TIMEOUT_MS = 3_000
# All tries of a chunk take less, unless the process that serves the connection has stopped.
CHUNK_LIMIT_S = 60.0
# The chunk took too long, or a consumer held the locks for longer than one waits for them.
_AGAIN = (errors.QueryCanceled, errors.LockNotAvailable, errors.DeadlockDetected)

# Whether there is something to recover, and from where on: the first published point without an average.
_HAS_AVERAGES = "SELECT EXISTS (SELECT FROM symbol_averages)"
_REACHES_BACK = "SELECT EXISTS (SELECT FROM price_points WHERE published_at IS NOT NULL AND id < %s)"
_FIRST_FROM = "SELECT id FROM price_points WHERE id >= %s AND id < %s ORDER BY id LIMIT 1"
_FIRST_MISSING = """
SELECT id FROM price_points AS point
WHERE published_at IS NOT NULL AND id >= %s AND id < %s
  AND NOT EXISTS (SELECT FROM symbol_averages AS stored WHERE stored.event_id = point.id)
ORDER BY id LIMIT 1
"""
# The search goes through the whole table, so much of it at a time, and each part ends by PostgreSQL's own
# time-out or, where its process stands still, by a cut connection.
_SEARCHED_AT_ONCE = timedelta(hours=6)
_SEARCH_TIMEOUT_S = 120
SEARCH_LIMIT_S = 125.0
# An id may lie so far ahead of its message's time.
AHEAD = timedelta(seconds=60)


class RebuildError(Exception):
    """It cannot go on, or not begin; what it has written is right, and another one does the rest."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rebuild or a verification is: symbols that are done, of how many, and rows."""

    symbols_done: int
    symbols: int
    looked_at: int

    def __str__(self) -> str:
        return f"{self.symbols_done:,} of {self.symbols:,} symbols, {self.looked_at:,} rows"


@dataclass(slots=True)
class Rebuilt:
    """What a rebuild did. `longest_s` is the longest time for which a chunk held its locks.

    Each row that was looked at is new, corrected or unchanged. `is_complete` is False where it was told
    to stop before its end.
    """

    looked_at: int = 0
    inserted: int = 0
    corrected: int = 0
    chunks: int = 0
    longest_s: float = 0.0
    is_complete: bool = True

    @property
    def unchanged(self) -> int:
        """Rows that were right."""
        return self.looked_at - self.inserted - self.corrected


def rebuild_averages(
    *,
    symbol: str | None = None,
    since: datetime | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Rebuilt:
    """Make the rows of one symbol or of all agree with the points, from ids of the time `since` on.

    `is_stopped` is asked before each chunk and each new try of one. Raises RebuildError where another
    rebuild is running, where PostgreSQL goes away, or where rows stay locked.
    """
    try:
        with _connected() as connection:
            first = NO_ID if since is None else first_id_at(since)
            rebuild = _Rebuild(connection, first=first, is_stopped=is_stopped)
            return rebuild.run([symbol] if symbol is not None else None, on_progress)
    except (psycopg.OperationalError, psycopg.InterfaceError, errors.TransactionTimeout) as error:
        reason = str(error).partition("\n")[0]
        raise RebuildError(f"PostgreSQL does not answer ({reason})") from error


def recover_averages(
    *, before: datetime, is_stopped: Callable[[], bool], is_first: bool = False
) -> int | None:
    """Add the averages of points published before a time, and of all since the first that lacks one.

    Return how many rows were added, or None where price_points has nothing of before that time, and with
    `is_first` also where there is no average yet. Raises RebuildError where PostgreSQL goes away, where
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
    except (psycopg.OperationalError, psycopg.InterfaceError, errors.TransactionTimeout) as error:
        raise RebuildError(str(error).partition("\n")[0]) from error
    if not rebuilt.is_complete:
        raise RebuildError("stopped before the end")
    return rebuilt.inserted


def _first_missing(connection: Connection, *, before: UUID, is_stopped: Callable[[], bool]) -> UUID | None:
    since = NO_ID
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
            raise RebuildError("stopped before the end")
    return None


def _first_id(connection: Connection, query: LiteralString, *bounds: UUID) -> UUID | None:
    row = connection.execute(query, bounds).fetchone()
    return None if row is None else UUID(str(row[0]))


def _is_there(connection: Connection, query: LiteralString, *arguments: UUID) -> bool:
    return connection.execute(query, arguments).fetchone() == (True,)


@contextmanager
def _connected() -> Iterator[Connection]:
    """Yield a connection that holds the lock of rebuilds."""
    connection = connect()
    try:
        connection.execute("SET application_name = 'rebuild_averages'")
        # Until the chunks begin nothing is locked, and reading the symbols may take a while.
        connection.execute("SET transaction_timeout = 0")
        try:
            # Waited for: PostgreSQL notices only after a moment that a rebuild before this one has gone.
            connection.execute("SELECT pg_advisory_lock(hashtext('rebuild_averages'))")
        except errors.LockNotAvailable as error:
            raise RebuildError("another rebuild_averages is running") from error
        yield connection
    finally:
        connection.close()


class _Rebuild:
    """One run: where it is, and how many rows it takes at once."""

    def __init__(self, connection: Connection, *, first: UUID, is_stopped: Callable[[], bool]) -> None:
        self._connection = connection
        self._first = first
        self._last = NO_ID
        self._is_stopped = is_stopped
        self._done = Rebuilt()
        self._rows = FIRST_ROWS
        # Rows that were corrected beside the span of their chunk: not looked at yet.
        self._ahead: set[UUID] = set()

    def run(self, symbols: list[str] | None, on_progress: Callable[[Progress], None]) -> Rebuilt:
        """Go through the symbols; None for all. What comes after the start is the consumers' own."""
        with self._connection.cursor() as cursor:
            self._last = read_newest_id(cursor) or NO_ID
            names = read_symbols(cursor) if symbols is None else symbols
        self._plan()
        for number, name in enumerate(names):
            for _chunk in self._chunks(name):
                on_progress(Progress(number, len(names), self._done.looked_at))
            if not self._done.is_complete:
                break
            on_progress(Progress(number + 1, len(names), self._done.looked_at))
        self._done.looked_at += len(self._ahead)
        self._done.corrected += len(self._ahead)
        return self._done

    def _plan(self) -> None:
        """Plan outside of the locks, for as long as it takes: the more partitions, the longer."""
        self._connection.execute("SET transaction_timeout = 0")
        plan_corrections(self._connection)
        self._connection.execute(f"SET transaction_timeout = {TRANSACTION_TIMEOUT_MS}")

    def _chunks(self, symbol: str) -> Iterator[None]:
        """Do the symbol's chunks in the order of their ids, one at each step."""
        first = self._first
        while first <= self._last:
            with time_limit(self._connection, seconds=CHUNK_LIMIT_S):
                last = self._do_chunk(Span(symbol, first, self._last))
            if last is None:
                return
            yield
            if last == self._last:
                return
            first = UUID(int=last.int + 1)

    def _do_chunk(self, rest: Span) -> UUID | None:
        """Do a first part of what is left; return its last id, None where nothing more is done."""
        for _try in range(MOST_TRIES):
            if self._is_stopped():
                self._done.is_complete = False
                return None
            with self._connection.cursor() as cursor:
                end = read_end(cursor, rest, most=self._rows)
            if end is None:
                return None
            try:
                return self._correct(Span(rest.symbol, rest.first, end))
            except _AGAIN as error:
                reason = str(error).partition("\n")[0]
                self._rows = max(self._rows // 4, LEAST_ROWS)
                # It may have been the planning that took so long.
                self._plan()
        raise RebuildError(f"rows of {rest.symbol} could not be had in {MOST_TRIES} tries ({reason})")

    def _correct(self, span: Span) -> UUID:
        """Correct the span, or as much of it as has not too many misfiled rows for one transaction."""
        with self._connection.cursor() as cursor:
            misfiled = read_misfiled(cursor, span, most=MAX_MISFILED)
        if len(misfiled) == MAX_MISFILED:
            span = Span(span.symbol, span.first, misfiled[-1].event_id)
        symbols = {span.symbol}.union(*(row.symbols for row in misfiled))
        moved: set[UUID] = set()
        with self._connection.transaction(), self._connection.cursor() as cursor:
            lock_symbols(cursor, symbols)
            began = time.perf_counter()
            cursor.execute(f"SET LOCAL statement_timeout = {int(MOST_CHUNK_S * 1000)}")
            use_one_plan(cursor)
            for row in misfiled:
                moved.update(move_misfiled(cursor, row))
            found = correct(cursor, span, ask_about=self._ahead | moved)
            if moved or found.inserted or found.changed:
                changed = moved.union(found.changed).difference(found.inserted)
                note_written(cursor, Written(added=found.inserted, changed=sorted(changed)))
                cursor.execute("SELECT nextval('averages_epoch')")
        seconds = time.perf_counter() - began
        corrected = {*found.known, *(each for each in found.changed if each <= span.last)}
        self._ahead = (self._ahead | moved).union(found.changed) - corrected
        self._count(found.rows, inserted=len(found.inserted), corrected=len(corrected), seconds=seconds)
        return span.last

    def _count(self, rows: int, *, inserted: int, corrected: int, seconds: float) -> None:
        done = self._done
        done.looked_at += rows
        done.inserted += inserted
        done.corrected += corrected
        done.chunks += 1
        done.longest_s = max(done.longest_s, seconds)
        # Towards the aim, but not by more than twice: one slow commit tells little.
        fitting = int(self._rows * min(max(AIM_CHUNK_S / seconds, 0.25), 2))
        if rows >= self._rows or fitting < self._rows:
            self._rows = min(max(fitting, LEAST_ROWS), MOST_ROWS)
