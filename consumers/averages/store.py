"""Batches of events into symbol_averages: the fast path, the slow path, and how to choose.

What keeps every row right, whoever else writes at the same time (the other side of a rebalance, a
process that was stopped and woke up): a transaction first takes the locks of its symbols, then looks
whether what is remembered of them still is what the table holds, and only then writes. So each transaction
finds averages that are right for the rows there are, and leaves averages that are right with its own.

A batch is planned in one thread, and written in another. Where enough is remembered of its series, its rows
are finished before its transaction begins, while the batch before may still be being written: that one is
taken to be stored as it was planned. Where it is not, the store gets older, and plans of before that are not
relied on: for these, and wherever the table holds other points than are remembered, averages are computed
within the transaction.

The fast path computes averages here, from remembered points, and writes new rows by one COPY. The slow
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

from consumers.averages.columns import Events, Series, decimal_of, id_of
from consumers.averages.connection import ANSWER_LIMIT_S, connect, end_overdue_transactions, time_limit
from consumers.averages.dead_letter_rows import DeadLettersFullError, insert_dead_letters
from consumers.averages.histories import Context, Histories, read_contexts
from consumers.averages.rows import Rows, copy_data
from consumers.averages.statements import (
    copy_rows,
    insert_late,
    lock_and_look,
    lock_symbols,
    update_averages,
)
from consumers.averages.windows import Averaged, Batch, average, leave_out, sort_events
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
class Plan:
    """A batch on its way into the table.

    rows      of its events, without averages
    batch     its events, sorted
    contexts  of its series, where enough is remembered
    averaged  its points, where enough is remembered of all its series
    finished  the new ones among them as data for COPY
    age       of the store when that was remembered
    """

    events: Events
    rows: Rows
    dead_letters: Sequence[DeadLetter]
    batch: Batch
    contexts: Mapping[Series, Context]
    averaged: Averaged | None
    finished: Sequence[bytes]
    age: int


@dataclass(frozen=True, slots=True)
class _Lesson:
    """What a write has read of its series, and what it has made of them."""

    series: Sequence[Series]
    averaged: Averaged
    contexts: Mapping[Series, Context]


@dataclass(frozen=True, slots=True)
class _Found:
    """What a write has found: the epoch, whether the table had what was held, and what it had to read."""

    epoch: int
    lesson: _Lesson | None
    as_held: bool


class AverageStore:
    """Writes events as rows with their averages, and dead letters beside them.

    One thread plans batches, and another may write them meanwhile, in the same order.
    """

    def __init__(self) -> None:
        self._connection: psycopg.Connection | None = None
        # Of the thread that plans.
        self._histories = Histories()
        self._remembered_at = 0
        self._is_certain = True
        # Of the thread that writes; the other one looks at them. The store gets older by each batch that is
        # not stored on the points that were remembered.
        self._age = 0
        self._epoch = 0
        self._lesson: _Lesson | None = None

    def plan(
        self, events: Events, rows: Rows, dead_letters: Sequence[DeadLetter], *, ahead: bool
    ) -> Plan | None:
        """Prepare a batch for `write`; the rows are those of its events.

        `ahead` tells that the batch before is not written yet. Gives None where this one has to wait for it.
        """
        if ahead and not (self._is_certain and self._age == self._remembered_at):
            return None
        self._learn()
        batch = sort_events(events)
        contexts = self._histories.contexts(batch)
        self._is_certain = len(contexts) == len(batch.series)
        averaged, finished = None, list[bytes]()
        if self._is_certain:
            averaged = _averaged(batch, contexts)
            finished = list(copy_data(averaged, rows))
            self._histories.remember(averaged, contexts)
        age = self._remembered_at
        return Plan(events, rows, dead_letters, batch, contexts, averaged, finished, age)

    def write(self, plan: Plan) -> None:
        """Store the batch: all of it or, where an error is raised, nothing.

        Events and dead letters that are already stored change nothing. Raises StoreUnavailableError
        where the same batch can be planned and written again.
        """
        went_as_remembered, self._lesson = False, None
        try:
            went_as_remembered = self._write(plan)
        except DeadLettersFullError as error:
            raise StoreUnavailableError(str(error)) from error
        except _NOT_NOW as error:
            self._recover(error)
            raise StoreUnavailableError(str(error).partition("\n")[0]) from error
        finally:
            if not went_as_remembered:
                self._age += 1

    def forget(self) -> None:
        """Drop what is known of all series: it is read again when they come next. Not during a write."""
        self._histories.forget()
        self._lesson = None
        self._is_certain = True

    def close(self) -> None:
        """Close the connection; the next batch opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _learn(self) -> None:
        """Take over what the last write has found out."""
        age, lesson, self._lesson = self._age, self._lesson, None
        if age != self._remembered_at:
            self._histories.forget()
            self._remembered_at = age
        if lesson is not None:
            self._histories.forget(lesson.series)
            self._histories.remember(lesson.averaged, lesson.contexts)

    def _write(self, plan: Plan) -> bool:
        """Store the batch; tell whether the table held what was remembered."""
        is_remembered = plan.age == self._age
        try:
            with self._transaction() as cursor:
                found = _write_looking(
                    cursor, plan, plan.contexts if is_remembered else {}, epoch=self._epoch
                )
        except errors.UniqueViolation:
            # An id is there already, in another series: only the slow path passes it over.
            with self._transaction() as cursor:
                lock_symbols(cursor, plan.batch.symbols())
                insert_late(cursor, plan.batch, plan.events)
                insert_dead_letters(cursor, plan.dead_letters)
            return False
        # Only after the commit: what a failed batch computed is in no table.
        self._epoch, self._lesson = found.epoch, found.lesson
        return is_remembered and found.as_held

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


def _write_looking(cursor: Cursor, plan: Plan, held: Mapping[Series, Context], *, epoch: int) -> _Found:
    """Write the plan's rows where the table has what is held of each of its series, else find them anew."""
    batch = plan.batch
    epoch_now, stale = lock_and_look(
        cursor, batch.symbols(), {series: context.points for series, context in held.items()}
    )
    if epoch_now != epoch:
        # A rebuild may have changed prices that are remembered.
        stale = set(held)
    lesson = None
    if plan.averaged is not None and not stale and len(held) == len(batch.series):
        copy_rows(cursor, plan.finished)
        _update_changed(cursor, plan.averaged)
    else:
        current = {series: context for series, context in held.items() if series not in stale}
        lesson = _write_looked_up(cursor, plan, current)
    insert_dead_letters(cursor, plan.dead_letters)
    return _Found(epoch_now, lesson, as_held=epoch_now == epoch and not stale)


def _write_looked_up(cursor: Cursor, plan: Plan, current: Mapping[Series, Context]) -> _Lesson:
    """Write the batch by what the table holds, of which a part is known already."""
    batch = plan.batch
    contexts = {**current, **read_contexts(cursor, batch, but=current.keys())}
    known = leave_out(batch, {series for series in batch.series if series not in contexts})
    averaged = _averaged(known, contexts)
    copy_rows(cursor, copy_data(averaged, plan.rows))
    _update_changed(cursor, averaged)
    insert_late(cursor, leave_out(batch, set(contexts)), plan.events)
    return _Lesson(batch.series, averaged, contexts)


def _averaged(batch: Batch, contexts: Mapping[Series, Context]) -> Averaged:
    return average(batch, [contexts[series].points for series in batch.series])


def _update_changed(cursor: Cursor, averaged: Averaged) -> None:
    """Give stored rows that follow new ones their other averages."""
    changed = np.flatnonzero(averaged.changed)
    update_averages(
        cursor,
        [id_of(point) for point in averaged.points[changed]],
        averages=[_mean(averaged, row) for row in changed],
        sizes=averaged.sizes[changed].tolist(),
    )


def _mean(averaged: Averaged, row: np.intp) -> Decimal | None:
    if averaged.sizes[row] < WINDOW_POINTS:
        return None
    return decimal_of(averaged.wholes[row], averaged.fractions[row], places=MAX_DECIMALS + 1)
