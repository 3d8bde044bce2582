"""Batches of events into symbol_averages: the fast path, the slow path, and how to choose.

What keeps every row right, whoever else writes at the same time (the other side of a rebalance, a
process that was stopped and woke up): a transaction first takes the locks of its symbols, then looks
whether what it remembers of them still is what the table holds, and only then writes. So each transaction
finds averages that are right for the rows there are, and leaves averages that are right with its own.

The fast path computes averages here, from remembered points, and writes new rows by one COPY. The slow
path computes them in SQL: for an event that is older than all that is remembered of its symbol, and for a
batch with an id that is stored under another symbol.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal

import numpy as np
import psycopg
import structlog
from psycopg import Cursor, errors

from consumers.averages import Averaged, Batch, average, leave_out, sort_events
from consumers.columns import Events, decimal_of, id_of
from consumers.connection import connect, end_overdue_transactions
from consumers.histories import Context, Histories
from consumers.rows import copy_data
from consumers.statements import (
    copy_rows,
    insert_dead_letters,
    insert_late,
    lock_symbols,
    update_averages,
)
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
    """PostgreSQL does not take the batch now; the same batch can be written again later."""


class AverageStore:
    """Writes events as rows with their averages, and dead letters beside them. Not for two threads."""

    def __init__(self) -> None:
        self._connection: psycopg.Connection | None = None
        self._histories = Histories()

    def write(self, events: Events, dead_letters: Sequence[DeadLetter] = ()) -> None:
        """Store the batch: all of it or, where an error is raised, nothing.

        Events and dead letters that are already stored change nothing. Raises StoreUnavailableError
        where the same batch can be tried again.
        """
        batch = sort_events(events)
        try:
            self._write(batch, events, dead_letters)
        except _NOT_NOW as error:
            self._recover(error)
            raise StoreUnavailableError(str(error).partition("\n")[0]) from error

    def forget(self) -> None:
        """Drop what is known of all symbols: it is read again when they come next."""
        self._histories.forget()

    def close(self) -> None:
        """Close the connection; the next batch opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _write(self, batch: Batch, events: Events, dead_letters: Sequence[DeadLetter]) -> None:
        try:
            with self._transaction() as cursor:
                lock_symbols(cursor, batch.symbols)
                contexts = self._histories.contexts(cursor, batch)
                averaged = _write_averaged(cursor, batch, events, contexts)
                insert_late(cursor, leave_out(batch, set(contexts)), events)
                insert_dead_letters(cursor, dead_letters)
        except errors.UniqueViolation:
            # An id is there already, under another symbol: only the slow path passes it over.
            with self._transaction() as cursor:
                lock_symbols(cursor, batch.symbols)
                insert_late(cursor, batch, events)
                insert_dead_letters(cursor, dead_letters)
            self._histories.forget(batch.symbols)
            return
        # Only after the commit: what a failed batch computed is in no table.
        self._histories.forget(batch.symbols)
        self._histories.remember(averaged, contexts)

    def _recover(self, error: psycopg.Error) -> None:
        """Make room for the next try: end whoever holds the locks for too long, or connect anew."""
        if isinstance(error, errors.LockNotAvailable) and self._connection is not None:
            with suppress(*_NOT_NOW):
                if ended := end_overdue_transactions(self._connection):
                    log.warning("transactions.ended", count=ended)
                return
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[Cursor]:
        if self._connection is None:
            self._connection = connect()
        with self._connection.transaction(), self._connection.cursor() as cursor:
            yield cursor


def _write_averaged(
    cursor: Cursor, batch: Batch, events: Events, contexts: Mapping[str, Context]
) -> Averaged:
    """Write new rows, and other averages of rows that follow them; other symbols are left alone."""
    known = leave_out(batch, {symbol for symbol in batch.symbols if symbol not in contexts})
    averaged = average(known, [contexts[symbol].points for symbol in known.symbols])
    copy_rows(cursor, copy_data(averaged, events))
    changed = np.flatnonzero(averaged.changed)
    update_averages(
        cursor,
        [id_of(point) for point in averaged.points[changed]],
        averages=[_mean(averaged, row) for row in changed],
        sizes=averaged.sizes[changed].tolist(),
    )
    return averaged


def _mean(averaged: Averaged, row: np.intp) -> Decimal | None:
    if averaged.sizes[row] < WINDOW_POINTS:
        return None
    return decimal_of(averaged.wholes[row], averaged.fractions[row], places=MAX_DECIMALS + 1)
