"""The consumer as a process."""

import gc
import signal
import sys
from argparse import ArgumentParser
from typing import Any

import structlog
from confluent_kafka import KafkaException
from django.core.management.base import BaseCommand, CommandError

from consumers.averages.store import AverageStore
from consumers.handler import AverageHandler
from consumers.reading.group import LogTrimmedError, OffsetReset
from consumers.reading.loop import ConsumerLoop
from consumers.reading.watches import StalledError, TopicReplacedError
from prices.maintenance.stopped_processes import NEEDS_OPERATOR
from prices.management.examples import add_examples
from prices.publishing.kafka_clients import make_admin
from prices.publishing.topic_settings import UnsuitableTopicError, refuse_unsuitable

log = structlog.get_logger(__name__)


class Command(BaseCommand):
    help = "Turn the price events of Kafka into moving averages, until SIGTERM or Ctrl-C."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take where to begin in partitions whose position is gone."""
        add_examples(parser, "consume_prices", "consume_prices --from earliest")
        parser.add_argument(
            "--from",
            dest="reset",
            choices=[str(reset) for reset in OffsetReset],
            help="Where to begin in partitions whose committed offset Kafka no longer has; the others go on"
            " where they are, and those without an offset begin at the oldest message. Without it, such a"
            " partition ends the command. To be given once, by hand, and not in the service's own command.",
        )

    def handle(self, *, reset: str | None, **options: Any) -> None:
        """Run until a signal comes; what was read by then is stored first.

        Exit 78 where somebody has to decide how it goes on.
        """
        _tune_interpreter()
        _look_at_topic()

        loop = ConsumerLoop(AverageHandler(AverageStore()), reset=OffsetReset(reset) if reset else None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: loop.stop())
        try:
            loop.run()
        except (LogTrimmedError, TopicReplacedError) as error:
            raise CommandError(str(error), returncode=NEEDS_OPERATOR) from error
        except StalledError as error:
            raise CommandError(str(error)) from error


def _look_at_topic() -> None:
    """Say what is odd about the topic, and refuse one that loses messages; while Kafka is away, go on."""
    kafka = make_admin()
    try:
        for odd in refuse_unsuitable(kafka):
            log.warning("topic.odd", reason=odd)
    except UnsuitableTopicError as error:
        raise CommandError(str(error), returncode=NEEDS_OPERATOR) from error
    except KafkaException as error:
        log.warning("topic.not_looked_at", reason=kafka.reason(error))


def _tune_interpreter() -> None:
    """Keep the collector and the other thread from slowing batches down.

    A batch makes tens of thousands of objects, none of them in cycles: by the defaults the collector walks
    through all of Django several times a batch, which takes more than half of the time. And the thread that
    writes needs the interpreter for moments only, between two waits for PostgreSQL: by default it gets it
    from the one that decodes after 5 ms each time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 20)
    sys.setswitchinterval(0.0001)
