"""From messages to rows: events are averaged and stored, what cannot be read becomes a dead letter."""

from collections.abc import Sequence

import structlog
from confluent_kafka import Message

from consumers.decoding import Decoded, decode_messages
from consumers.pipeline import NotNowError
from consumers.store import AverageStore, StoreUnavailableError

log = structlog.get_logger(__name__)


class AverageHandler:
    """Gives the loop's batches to the store."""

    def __init__(self, store: AverageStore) -> None:
        self._store = store

    def read(self, messages: Sequence[Message]) -> Decoded:
        """Give what the messages say."""
        return decode_messages(messages)

    def write(self, batch: Decoded) -> None:
        """Store what was read. Raises NotNowError where the store cannot take it yet."""
        try:
            self._store.write(batch.events, batch.dead_letters)
        except StoreUnavailableError as error:
            raise NotNowError(str(error)) from error
        refused = batch.dead_letters
        if refused:
            log.warning("messages.refused", count=len(refused), first_reason=refused[0].reason)

    def forget(self) -> None:
        """Drop what is known of symbols that may now be another process's."""
        self._store.forget()

    def close(self) -> None:
        """Close the connection to PostgreSQL."""
        self._store.close()
