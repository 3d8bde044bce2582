"""The stream's server as a process."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from prices.management.examples import add_examples
from prices.stream.server import run_server


class Command(BaseCommand):
    help = "Serve GET /prices/stream, until SIGTERM or Ctrl-C."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take where to listen."""
        add_examples(parser, "stream_prices", "stream_prices --host 0.0.0.0 --port 8001")
        parser.add_argument("--host", default="127.0.0.1", help="Address to listen at.")
        parser.add_argument("--port", type=int, default=settings.STREAM_PORT, help="Port to listen at.")

    def handle(self, *, host: str, port: int, **options: Any) -> None:
        """Serve. Exit 1 where the port cannot be had."""
        try:
            run_server(host=host, port=port)
        except OSError as error:
            raise CommandError(f"{host}:{port} cannot be had: {error.strerror}") from error
