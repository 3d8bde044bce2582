"""manage.py republish: send points to Kafka again."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from prices.management.examples import add_examples
from prices.publishing.outbox import republish_missing


class Command(BaseCommand):
    """Put points that have no average back into the outbox."""

    help = "Puts published points that have no average back into the outbox; the sweep sends them again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take --missing."""
        add_examples(parser, "republish --missing")
        parser.add_argument(
            "--missing", action="store_true", required=True, help="points that have no average (required)"
        )

    def handle(self, **options: Any) -> None:
        """Put them back and report."""
        count = republish_missing()
        self.stdout.write(f"{count} points go to Kafka again")
