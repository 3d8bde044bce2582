"""manage.py prepare: make what must exist before the service runs."""

import json
from argparse import ArgumentParser
from typing import Any

from confluent_kafka import KafkaException
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from prices.maintenance.prepare import ADMIN_NAME, alone, ensure_admin, ensure_demo_job, prepare_database
from prices.management.examples import add_examples
from prices.publishing.kafka_clients import make_admin
from prices.publishing.topic import ensure_topic
from prices.publishing.topic_settings import UnsuitableTopicError, refuse_unsuitable


class Command(BaseCommand):
    """Apply migrations, make partitions, the topic and the admin user. Safe to run again."""

    help = "Applies migrations, makes partitions, the Kafka topic and the admin user. Safe to run again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take --demo and --json."""
        add_examples(parser, "prepare", "prepare --demo")
        parser.add_argument("--demo", action="store_true", help="also create a job on simulated prices")
        parser.add_argument("--json", action="store_true", help="print one line of JSON instead of text")

    def handle(self, *, demo: bool, json: bool, **options: Any) -> None:
        """Prepare and report."""
        kafka = make_admin()
        try:
            ensure_topic(kafka)
            for odd in refuse_unsuitable(kafka):
                self.stderr.write(odd)
        except UnsuitableTopicError as error:
            raise CommandError(str(error)) from error
        except KafkaException as error:
            raise CommandError(
                f"Kafka at {settings.KAFKA_BOOTSTRAP_SERVERS}: {kafka.reason(error)}"
            ) from error
        with alone():
            prepare_database()
            demo_job = ensure_demo_job() if demo else None
            # Last: a password that was made up can be shown only now.
            password = ensure_admin(settings.ADMIN_PASSWORD)
        report = {
            "admin": {"username": ADMIN_NAME, "password": password},
            "demo_job": str(demo_job) if demo_job else None,
            "topic": settings.KAFKA_TOPIC,
        }
        self.stdout.write(_as_json(report) if json else _as_text(report))


def _as_json(report: dict[str, Any]) -> str:
    return json.dumps(report)


def _as_text(report: dict[str, Any]) -> str:
    lines = ["tables      ready", f"topic       {report['topic']}"]
    if report["admin"]["password"]:
        lines.append(f"admin       {ADMIN_NAME}, password {report['admin']['password']} (shown this once)")
    else:
        lines.append(f"admin       {ADMIN_NAME}, password as set before")
    if report["demo_job"]:
        lines.append(f"demo job    {report['demo_job']}")
    return "\n".join(lines)
