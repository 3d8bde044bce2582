"""From messages to rows: events are averaged and stored, what cannot be read becomes a dead letter."""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

import structlog
from confluent_kafka import Message

from consumers.averages.store import AverageStore, PreparedBatch, StoreUnavailableError
from consumers.reading.decoding import Decoded, decode_messages, join
from consumers.reading.pipeline import RetryLaterError
from consumers.repair.rebuild import RebuildError, recover_averages

log = structlog.get_logger(__name__)


class AverageHandler:
    """Hands the loop's batches to the store."""

    def __init__(self, store: AverageStore) -> None:
        self._store = store

    def read(self, messages: Sequence[Message]) -> Decoded:
        """Return what the messages say."""
        return decode_messages(messages)

    def join(self, batches: Sequence[Decoded]) -> Decoded:
        """Return what several runs of messages say as one."""
        return join(batches)

    def prepare(self, batch: Decoded, *, speculative: bool) -> Callable[[], None] | None:
        """Return what stores the batch, or None where the one before has to be stored first."""
        prepared = self._store.prepare(batch.events, batch.rows, batch.dead_letters, speculative=speculative)
        return None if prepared is None else partial(self._write, prepared)

    def _write(self, prepared: PreparedBatch) -> None:
        try:
            self._store.write(prepared)
        except StoreUnavailableError as error:
            raise RetryLaterError(str(error)) from error
        refused = prepared.dead_letters
        if refused:
            log.warning("messages.refused", count=len(refused), first_reason=refused[0].reason)

    def recover(self, *, before: datetime, is_first: bool, is_stopped: Callable[[], bool]) -> int | None:
        """Add averages of points that nobody has read; None where price_points does not reach back."""
        try:
            return recover_averages(before=before, is_first=is_first, is_stopped=is_stopped)
        except RebuildError as error:
            raise RetryLaterError(str(error)) from error

    def invalidate(self) -> None:
        """Drop what is known of symbols that may now be another process's."""
        self._store.invalidate()

    def close(self) -> None:
        """Close the connection to PostgreSQL."""
        self._store.close()
