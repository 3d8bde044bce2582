"""From messages to rows: events are averaged and stored, what cannot be read becomes a dead letter."""

from collections.abc import Callable, Sequence
from functools import partial

import structlog
from confluent_kafka import Message

from consumers.decoding import Decoded, decode_messages, join
from consumers.pipeline import NotNowError
from consumers.store import AverageStore, Plan, StoreUnavailableError

log = structlog.get_logger(__name__)


class AverageHandler:
    """Gives the loop's batches to the store."""

    def __init__(self, store: AverageStore) -> None:
        self._store = store

    def read(self, messages: Sequence[Message]) -> Decoded:
        """Give what the messages say."""
        return decode_messages(messages)

    def join(self, batches: Sequence[Decoded]) -> Decoded:
        """Give what several runs of messages say as one."""
        return join(batches)

    def plan(self, batch: Decoded, *, ahead: bool) -> Callable[[], None] | None:
        """Give what stores the batch, or None where the one before has to be stored first."""
        plan = self._store.plan(batch.events, batch.rows, batch.dead_letters, ahead=ahead)
        return None if plan is None else partial(self._write, plan)

    def _write(self, plan: Plan) -> None:
        try:
            self._store.write(plan)
        except StoreUnavailableError as error:
            raise NotNowError(str(error)) from error
        refused = plan.dead_letters
        if refused:
            log.warning("messages.refused", count=len(refused), first_reason=refused[0].reason)

    def forget(self) -> None:
        """Drop what is known of symbols that may now be another process's."""
        self._store.forget()

    def close(self) -> None:
        """Close the connection to PostgreSQL."""
        self._store.close()
