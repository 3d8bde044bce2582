"""Batches of events into symbol_averages: the fast path, the slow path, and how to choose.

What keeps every row right, whoever else writes at the same time (the other side of a rebalance, a
process that was stopped and woke up): a transaction first takes the locks of its symbols, then looks
whether what is cached of them still is what the table holds, and only then writes. So each transaction
finds averages that are right for the rows there are, and leaves averages that are right with its own. What it
has written is noted in it (batches.py), for readers of the stream.

A batch is prepared in one thread, and written in another. Where enough of its series is cached, its rows are
finished before its transaction begins, while the batch before may still be being written: that one is taken
to be stored as it was prepared. Where it is not, a new generation begins, and batches prepared before it are
not relied on: for these, and wherever the table holds other points than the cache, averages are computed
within the transaction.

The fast path computes averages here, from cached points, and writes new rows by one COPY. The slow
path computes them in SQL: for an event that is older than all that is looked at of its series, and for a
batch with an id that is stored in another series.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import psycopg
import structlog
from psycopg import Cursor, errors

from consumers.averages.batches import Written, note_written
from consumers.averages.columns import Events, Series, decimal_of, id_of
from consumers.averages.connection import ANSWER_LIMIT_S, connect, end_overdue_transactions
from consumers.averages.dead_letter_rows import DeadLettersFullError, insert_dead_letters
from consumers.averages.rows import Rows, copy_data
from consumers.averages.statements import (
    copy_rows,
    insert_late,
    lock_and_look,
    lock_symbols,
    read_lookbacks,
    update_averages,
)
from consumers.averages.windows import (
    Averaged,
    Batch,
    Lookback,
    WindowCache,
    average,
    leave_out,
    sort_events,
)
from prices.database.time_limit import time_limit
from prices.models import DeadLetter
from prices.models.symbol_average import WINDOW_POINTS
from providers.base import MAX_DECIMALS

log = structlog.get_logger(__name__)

# The connection broke, or PostgreSQL refuses for now: a time-out, a deadlock, a full disk, a standby.
_NOT_NOW = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    errors.TransactionTimeout,
    errors.ReadOnlySqlTransaction,
)


class StoreUnavailableError(Exception):
    """The batch cannot be stored now, and the same one can be written again later; the text says why."""


@dataclass(frozen=True, slots=True)
class PreparedBatch:
    """A batch on its way into the table.

    rows        of its events, without averages
    batch       its events, sorted
    lookbacks   of its series, where enough is cached
    averaged    its points, where enough is cached of all its series
    finished    the new ones among them as data for COPY
    generation  of the cache from which that was taken
    """

    events: Events
    rows: Rows
    dead_letters: Sequence[DeadLetter]
    batch: Batch
    lookbacks: Mapping[Series, Lookback]
    averaged: Averaged | None
    finished: Sequence[bytes]
    generation: int


@dataclass(frozen=True, slots=True)
class _Refresh:
    """What a write has read of its series, and what it has made of them."""

    series: Sequence[Series]
    averaged: Averaged
    lookbacks: Mapping[Series, Lookback]


@dataclass(frozen=True, slots=True)
class _CheckResult:
    """What a write has found: the epoch, what it had to read, and whether the table had what is cached."""

    epoch: int
    refresh: _Refresh | None
    cache_valid: bool


class AverageStore:
    """Writes events as rows with their averages, and dead letters beside them.

    One thread prepares batches, and another may write them meanwhile, in the same order.
    """

    def __init__(self) -> None:
        self._connection: psycopg.Connection | None = None
        # Of the thread that prepares.
        self._cache = WindowCache()
        self._cache_generation = 0
        self._all_cached = True
        # Of the thread that writes; the other one looks at them. A generation ends with each batch that is
        # not stored on the points that were cached.
        self._generation = 0
        self._epoch = 0
        self._refresh: _Refresh | None = None

    def prepare(
        self, events: Events, rows: Rows, dead_letters: Sequence[DeadLetter], *, speculative: bool
    ) -> PreparedBatch | None:
        """Prepare a batch for `write`; the rows are those of its events.

        `speculative` says that the batch before is not written yet. Return None where this one has to wait
        for it.
        """
        if speculative and not (self._all_cached and self._generation == self._cache_generation):
            return None
        self._apply_refresh()
        batch = sort_events(events)
        lookbacks = self._cache.lookbacks(batch)
        self._all_cached = len(lookbacks) == len(batch.series)
        averaged, finished = None, list[bytes]()
        if self._all_cached:
            averaged = _averaged(batch, lookbacks)
            finished = list(copy_data(averaged, rows))
            self._cache.update(averaged, lookbacks)
        generation = self._cache_generation
        return PreparedBatch(events, rows, dead_letters, batch, lookbacks, averaged, finished, generation)

    def write(self, prepared: PreparedBatch) -> None:
        """Store the batch: all of it or, where an error is raised, nothing.

        Events and dead letters that are already stored change nothing. Raises StoreUnavailableError
        where the same batch can be prepared and written again.
        """
        used_cache, self._refresh = False, None
        try:
            used_cache = self._write(prepared)
        except DeadLettersFullError as error:
            raise StoreUnavailableError(str(error)) from error
        except _NOT_NOW as error:
            self._recover(error)
            raise StoreUnavailableError(str(error).partition("\n")[0]) from error
        finally:
            if not used_cache:
                self._generation += 1

    def invalidate(self) -> None:
        """Empty the cache: series are read again when they come next. Not during a write."""
        self._cache.invalidate()
        self._refresh = None
        self._all_cached = True

    def close(self) -> None:
        """Close the connection; the next batch opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _apply_refresh(self) -> None:
        """Bring the cache up to date with what the last write has found out."""
        generation, refresh, self._refresh = self._generation, self._refresh, None
        if generation != self._cache_generation:
            self._cache.invalidate()
            self._cache_generation = generation
        if refresh is not None:
            self._cache.invalidate(refresh.series)
            self._cache.update(refresh.averaged, refresh.lookbacks)

    def _write(self, prepared: PreparedBatch) -> bool:
        """Store the batch; return whether the table had what the cache has."""
        is_current = prepared.generation == self._generation
        try:
            with self._transaction() as cursor:
                found = _write_looking(
                    cursor, prepared, prepared.lookbacks if is_current else {}, epoch=self._epoch
                )
        except errors.UniqueViolation:
            # An id is there already, in another series: only the slow path passes it over.
            with self._transaction() as cursor:
                lock_symbols(cursor, prepared.batch.symbols())
                note_written(cursor, insert_late(cursor, prepared.batch, prepared.events))
                insert_dead_letters(cursor, prepared.dead_letters)
            return False
        # Only after the commit: what a failed batch computed is in no table.
        self._epoch, self._refresh = found.epoch, found.refresh
        return is_current and found.cache_valid

    def _recover(self, error: psycopg.Error) -> None:
        """Make room for the next try: end whoever holds the locks for too long, or connect anew."""
        if isinstance(error, errors.LockNotAvailable) and self._connection is not None:
            with suppress(*_NOT_NOW), time_limit(self._connection, seconds=ANSWER_LIMIT_S):
                if ended := end_overdue_transactions(self._connection):
                    log.warning("transactions.ended", count=ended)
                return
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[Cursor]:
        if self._connection is None:
            self._connection = connect()
        connection = self._connection
        with (
            time_limit(connection, seconds=ANSWER_LIMIT_S),
            connection.transaction(),
            connection.cursor() as cursor,
        ):
            yield cursor


def _write_looking(
    cursor: Cursor, prepared: PreparedBatch, expected: Mapping[Series, Lookback], *, epoch: int
) -> _CheckResult:
    """Write the finished rows where the table has what is expected of each series, else find them anew."""
    batch = prepared.batch
    epoch_now, stale = lock_and_look(
        cursor, batch.symbols(), {series: lookback.points for series, lookback in expected.items()}
    )
    if epoch_now != epoch:
        # A rebuild may have changed prices that are cached.
        stale = set(expected)
    refresh = None
    if prepared.averaged is not None and not stale and len(expected) == len(batch.series):
        copy_rows(cursor, prepared.finished)
        note_written(cursor, _update_changed(cursor, prepared.averaged))
    else:
        current = {series: lookback for series, lookback in expected.items() if series not in stale}
        refresh = _write_looked_up(cursor, prepared, current)
    insert_dead_letters(cursor, prepared.dead_letters)
    return _CheckResult(epoch_now, refresh, cache_valid=epoch_now == epoch and not stale)


def _write_looked_up(cursor: Cursor, prepared: PreparedBatch, current: Mapping[Series, Lookback]) -> _Refresh:
    """Write the batch by what the table holds, of which a part is known already."""
    batch = prepared.batch
    lookbacks = {**current, **read_lookbacks(cursor, batch, but=current.keys())}
    known = leave_out(batch, {series for series in batch.series if series not in lookbacks})
    averaged = _averaged(known, lookbacks)
    copy_rows(cursor, copy_data(averaged, prepared.rows))
    changed = _update_changed(cursor, averaged)
    note_written(cursor, changed, insert_late(cursor, leave_out(batch, set(lookbacks)), prepared.events))
    return _Refresh(batch.series, averaged, lookbacks)


def _averaged(batch: Batch, lookbacks: Mapping[Series, Lookback]) -> Averaged:
    return average(batch, [lookbacks[series].points for series in batch.series])


def _update_changed(cursor: Cursor, averaged: Averaged) -> Written:
    """Give stored rows that follow new ones their other averages; return these and the new ones."""
    rows = np.flatnonzero(averaged.changed)
    changed = update_averages(
        cursor,
        [id_of(point) for point in averaged.points[rows]],
        averages=[_mean(averaged, row) for row in rows],
        sizes=averaged.sizes[rows].tolist(),
    )
    return Written(averaged.points[averaged.arrival >= 0], changed=changed)


def _mean(averaged: Averaged, row: np.intp) -> Decimal | None:
    if averaged.sizes[row] < WINDOW_POINTS:
        return None
    return decimal_of(averaged.wholes[row], averaged.fractions[row], places=MAX_DECIMALS + 1)
