"""The consumer as a process."""

import gc
import signal
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from consumers.group import LogTrimmedError
from consumers.handler import AverageHandler
from consumers.loop import ConsumerLoop
from consumers.store import AverageStore


class Command(BaseCommand):
    help = "Turn the price events of Kafka into moving averages, until SIGTERM or Ctrl-C."

    def handle(self, **options: Any) -> None:
        """Run until a signal comes; what was read by then is stored first. Exit 1 where it cannot go on."""
        _rest_garbage_collection()
        loop = ConsumerLoop(AverageHandler(AverageStore()))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: loop.stop())
        try:
            loop.run()
        except LogTrimmedError as error:
            raise CommandError(str(error)) from error


def _rest_garbage_collection() -> None:
    """Keep the collector from walking through all of Django several times a batch.

    A batch makes tens of thousands of objects, none of them in cycles: by the defaults that costs more than
    half of all the consumer's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 20)
