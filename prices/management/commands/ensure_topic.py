"""manage.py ensure_topic: make the Kafka topic."""

from typing import Any

from confluent_kafka import KafkaException
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from prices.topic import ensure_topic


class Command(BaseCommand):
    """Make the topic of price events where it does not exist."""

    help = "Makes the Kafka topic of price events where it does not exist."

    def handle(self, **options: Any) -> None:
        """Make it and report."""
        try:
            made = ensure_topic()
        except KafkaException as error:
            raise CommandError(f"Kafka at {settings.KAFKA_BOOTSTRAP_SERVERS}: {error}") from error
        state = f"made with {settings.KAFKA_PARTITIONS} partitions" if made else "exists"
        self.stdout.write(f"{settings.KAFKA_TOPIC}: {state}")
