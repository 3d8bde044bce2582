"""Batches of events into symbol_averages: the fast path, the slow path, and how to choose.

What keeps every row right, whoever else writes at the same time (the other side of a rebalance, a
process that was stopped and woke up): a transaction first takes the locks of its symbols, then looks
whether its windows still are what the table holds, and only then writes. So each transaction finds
averages that are right for the rows there are, and leaves averages that are right with its own.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from operator import attrgetter
from typing import TypeAlias
from uuid import UUID

import psycopg
import structlog
from psycopg import Cursor, errors

from consumers.averages import Window
from consumers.connection import connect, end_overdue_transactions
from consumers.statements import (
    AverageRow,
    copy_rows,
    insert_dead_letters,
    insert_late,
    lock_symbols,
    read_windows,
    stale_symbols,
)
from prices.events import PriceEvent
from prices.models import DeadLetter

log = structlog.get_logger(__name__)

# Events by symbol, each symbol's in the order of their ids and no id twice.
Batch: TypeAlias = dict[str, list[PriceEvent]]
Windows: TypeAlias = dict[str, Window]

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
        self._windows: Windows = {}

    def write(self, events: Iterable[PriceEvent], dead_letters: Sequence[DeadLetter] = ()) -> None:
        """Store the batch: all of it or, where an error is raised, nothing.

        Events and dead letters that are already stored change nothing. Raises StoreUnavailableError
        where the same batch can be tried again.
        """
        batch = _sorted_by_symbol(events)
        # Put back only after the commit: what a failed batch computed on them is in no table.
        windows, self._windows = self._windows, {}
        try:
            after = self._write(batch, dead_letters, windows)
        except _NOT_NOW as error:
            self._recover(error)
            raise StoreUnavailableError(str(error).partition("\n")[0]) from error
        for symbol in batch:
            windows.pop(symbol, None)
        self._windows = windows | {symbol: window for symbol, window in after.items() if window.is_full}

    def forget(self) -> None:
        """Drop all windows: they are read again when their symbols come next."""
        self._windows = {}

    def close(self) -> None:
        """Close the connection; the next batch opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _write(self, batch: Batch, dead_letters: Sequence[DeadLetter], windows: Windows) -> Windows:
        """Write in one transaction; give the windows of the symbols that took the fast path."""
        try:
            with self._transaction() as cursor:
                lock_symbols(cursor, batch)
                rows, after = _averages(batch, _windows_below(cursor, batch, windows))
                copy_rows(cursor, rows)
                insert_late(cursor, _events_of(batch, without=after))
                insert_dead_letters(cursor, dead_letters)
        except errors.UniqueViolation:
            # An id is there already, under another symbol: only the slow path passes it over.
            with self._transaction() as cursor:
                lock_symbols(cursor, batch)
                insert_late(cursor, _events_of(batch, without={}))
                insert_dead_letters(cursor, dead_letters)
            return {}
        return after

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


def _sorted_by_symbol(events: Iterable[PriceEvent]) -> Batch:
    # Of several events with one id the first counts, as it does in the table.
    unique: dict[UUID, PriceEvent] = {}
    for event in events:
        unique.setdefault(event.event_id, event)
    ordered = sorted(unique.values(), key=attrgetter("symbol", "event_id"))
    return {symbol: list(of_symbol) for symbol, of_symbol in groupby(ordered, attrgetter("symbol"))}


def _windows_below(cursor: Cursor, batch: Batch, known: Windows) -> Windows:
    """Give the windows of those symbols whose events all lie above what is stored."""
    if not batch:
        return {}
    held = {symbol: known[symbol] for symbol in batch if symbol in known}
    stale = stale_symbols(cursor, held)
    kept = {symbol: window for symbol, window in held.items() if symbol not in stale}
    lowest = min(events[0].event_id for events in batch.values())
    read = read_windows(cursor, [symbol for symbol in batch if symbol not in kept], near=lowest)
    return {
        symbol: window
        for symbol, window in (kept | read).items()
        if window.watermark is None or window.watermark < batch[symbol][0].event_id
    }


def _averages(batch: Batch, windows: Windows) -> tuple[list[AverageRow], Windows]:
    """Compute the rows of the symbols that have a window, and their windows after these rows."""
    rows: list[AverageRow] = []
    after: Windows = {}
    for symbol, window in sorted(windows.items()):
        for event in batch[symbol]:
            window = window.add(event.event_id, event.price)
            rows.append(_row(event, window))
        after[symbol] = window
    return rows, after


def _row(event: PriceEvent, window: Window) -> AverageRow:
    return AverageRow(
        event_id=event.event_id,
        symbol=event.symbol,
        price=event.price,
        average=window.average,
        window_size=window.size,
        provider=event.provider,
        observed_at=event.observed_at,
    )


def _events_of(batch: Batch, *, without: Mapping[str, Window]) -> list[PriceEvent]:
    return [event for symbol, events in batch.items() if symbol not in without for event in events]
