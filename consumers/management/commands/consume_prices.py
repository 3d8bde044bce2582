"""The consumer as a process."""

import gc
import signal
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from consumers.group import Begin, LogTrimmedError
from consumers.handler import AverageHandler
from consumers.loop import ConsumerLoop
from consumers.store import AverageStore
from consumers.topic_watch import TopicReplacedError


class Command(BaseCommand):
    help = "Turn the price events of Kafka into moving averages, until SIGTERM or Ctrl-C."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take where to begin in partitions whose position is gone."""
        parser.add_argument(
            "--from",
            dest="begin",
            choices=[str(begin) for begin in Begin],
            help="Where to begin in partitions whose committed offset Kafka no longer has; the others go on"
            " where they are, and those without an offset begin at the oldest message. Without it, such a"
            " partition ends the command. To be given once, by hand, and not in the service's own command.",
        )

    def handle(self, *, begin: str | None, **options: Any) -> None:
        """Run until a signal comes; what was read by then is stored first. Exit 1 where it cannot go on."""
        _rest_garbage_collection()
        loop = ConsumerLoop(AverageHandler(AverageStore()), begin=Begin(begin) if begin else None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: loop.stop())
        try:
            loop.run()
        except (LogTrimmedError, TopicReplacedError) as error:
            raise CommandError(str(error)) from error


def _rest_garbage_collection() -> None:
    """Keep the collector from walking through all of Django several times a batch.

    A batch makes tens of thousands of objects, none of them in cycles: by the defaults that costs more than
    half of all the consumer's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 20)
