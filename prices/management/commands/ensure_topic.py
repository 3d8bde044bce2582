"""manage.py ensure_topic: make the Kafka topic."""

from argparse import ArgumentParser
from typing import Any

from confluent_kafka import KafkaException
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from prices.management.examples import add_examples
from prices.publishing.kafka_clients import make_admin
from prices.publishing.topic import ensure_topic
from prices.publishing.topic_settings import UnsuitableTopicError, refuse_unsuitable


class Command(BaseCommand):
    """Make the topic of price events where it does not exist."""

    help = "Makes the Kafka topic of price events where it does not exist."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take nothing."""
        add_examples(parser, "ensure_topic")

    def handle(self, **options: Any) -> None:
        """Make it and report."""
        kafka = make_admin()
        try:
            made = ensure_topic(kafka)
            odd = refuse_unsuitable(kafka)
        except UnsuitableTopicError as error:
            raise CommandError(str(error)) from error
        except KafkaException as error:
            raise CommandError(
                f"Kafka at {settings.KAFKA_BOOTSTRAP_SERVERS}: {kafka.reason(error)}"
            ) from error
        state = f"made with {settings.KAFKA_PARTITIONS} partitions" if made else "exists"
        self.stdout.write(f"{settings.KAFKA_TOPIC}: {state}")
        for each in odd:
            self.stderr.write(each)
