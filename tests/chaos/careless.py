"""Consumers that do wrong on purpose: what finds nothing on these finds nothing.

`python -m tests.chaos.careless` runs the service's consumer, except that offsets are committed as soon
as messages are read, before anything is written.
"""

import os
from contextlib import suppress
from typing import Any

import confluent_kafka
import django
from confluent_kafka import KafkaException, Message, TopicPartition
from django.core.management import call_command

# From PostgreSQL's side: a late event is stored, and the averages that follow it stay as they were.
NEVER_RECOMPUTES = """
    CREATE FUNCTION keep_average() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
    CREATE TRIGGER keep_average BEFORE UPDATE ON symbol_averages
        FOR EACH ROW EXECUTE FUNCTION keep_average();
"""
RECOMPUTES_AGAIN = "DROP FUNCTION keep_average CASCADE"


class HastyConsumer(confluent_kafka.Consumer):
    """Commits what it gives, at once."""

    def consume(self, *args: Any, **kwargs: Any) -> list[Message]:
        """Return messages whose offsets are committed."""
        return [self._committed(message) for message in super().consume(*args, **kwargs)]

    def poll(self, *args: Any, **kwargs: Any) -> Message | None:
        """Return a message whose offset is committed."""
        message = super().poll(*args, **kwargs)
        return None if message is None else self._committed(message)

    def _committed(self, message: Message) -> Message:
        # Imported only now: after this consumer took the place of Kafka's.
        from consumers.reading.offsets import metadata_of

        if message.error() is None:
            # As the service commits: it makes up for what others have committed.
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            assert topic is not None
            assert partition is not None
            assert offset is not None
            position = TopicPartition(topic, partition, offset + 1, metadata=metadata_of(""))
            with suppress(KafkaException):
                super().commit(offsets=[position], asynchronous=False)
        return message

    def commit(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """Commit nothing more: the offset of what is stored is behind, and would undo the haste."""


if __name__ == "__main__":
    # Before the service imports it by this name; so its modules may be whatever they are.
    confluent_kafka.Consumer = HastyConsumer  # type: ignore[misc]
    os.environ["DJANGO_SETTINGS_MODULE"] = "marketdata.settings"
    django.setup()
    call_command("consume_prices")
