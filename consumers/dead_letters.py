"""Dead letters: found, sent to their topic again, and deleted.

A replay is at least once: where it is cut off after Kafka has taken a message, the next one sends that
again. That doubles nothing: a message that is sound by now has one event id, and so one average; one that
is not becomes a new dead letter, at its new offset.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from confluent_kafka import KafkaError, Message, Producer
from django.conf import settings
from django.db import transaction
from django.db.models import BinaryField, QuerySet
from django.db.models.functions import Now, Substr

from consumers.messages import UNREADABLE_HEADERS, ReceivedMessage
from consumers.originals import Originals
from prices.events import Headers
from prices.models import DeadLetter
from prices.models.raw_market_data import OctetLength

DELIVERY_TIMEOUT_S = 10.0
# Messages may have a megabyte each, and all of a batch are held at once.
BATCH = 20
DELETED_AT_ONCE = 1_000
KEY_BYTES = 64
NO_ORIGINAL = "Kafka no longer has the message, and its headers are known to nobody else"

_silent = logging.getLogger("librdkafka.dead_letters")
_silent.disabled = True


class UnknownLettersError(LookupError):
    """Ids that no dead letter has; the text names the first."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which dead letters are meant: the newest `limit` of those that fit, in any case of `reason`."""

    reason: str | None = None
    since: datetime | None = None
    topic: str | None = None
    limit: int | None = None


@dataclass(slots=True)
class Replay:
    """What became of a replay; `passed_over` were replayed before, or are being replayed just now."""

    sent: int = 0
    passed_over: int = 0
    failed: list[tuple[UUID, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Summary:
    """A dead letter in short: the first 64 bytes of the key, and how long key and value are."""

    letter: DeadLetter
    key: bytes | None
    key_bytes: int | None
    value_bytes: int | None


def matching(wanted: Filter, *, only_open: bool = False) -> QuerySet[DeadLetter]:
    """Give the dead letters that fit, newest first; `only_open`: of those not replayed yet."""
    letters = DeadLetter.objects.order_by("-id")
    if only_open:
        letters = letters.filter(replayed_at=None)
    if wanted.reason is not None:
        letters = letters.filter(reason__icontains=wanted.reason)
    if wanted.since is not None:
        letters = letters.filter(created_at__gte=wanted.since)
    if wanted.topic is not None:
        letters = letters.filter(topic=wanted.topic)
    return letters[: wanted.limit]


def summaries(wanted: Filter) -> list[Summary]:
    """Give those that fit, without the whole of their keys and values."""
    letters = matching(wanted).defer("key", "value")
    lengths = letters.annotate(
        key_start=Substr("key", 1, KEY_BYTES, output_field=BinaryField()),
        key_bytes=OctetLength("key"),
        value_bytes=OctetLength("value"),
    )
    return [Summary(each, _bytes(each.key_start), each.key_bytes, each.value_bytes) for each in lengths]


def check_known(ids: Sequence[UUID]) -> None:
    """Raise UnknownLettersError unless each id is a dead letter's."""
    known = set(DeadLetter.objects.filter(id__in=ids).values_list("id", flat=True))
    unknown = [each for each in ids if each not in known]
    if unknown:
        raise UnknownLettersError(f"No dead letter has the id {unknown[0]}.")


def replay(ids: Sequence[UUID]) -> Replay:
    """Send the messages of these dead letters again, as they were, and note those that Kafka has confirmed.

    Key, value and headers are the original's, read from Kafka: a letter whose message Kafka has no
    longer, or whose headers cannot be read, fails. So does one that Kafka does not confirm within 10 s.
    Raises KafkaException where Kafka does not answer; what was confirmed before stays noted.
    """
    done = Replay()
    with Originals() as originals:
        producer = _producer()
        for some in _batches(ids, BATCH):
            # The rows are locked until they are noted, so that two replays at once send each letter once.
            with transaction.atomic():
                _replay_batch(some, done, find=originals.find, producer=producer)
    return done


def discard(ids: Sequence[UUID]) -> int:
    """Delete these dead letters; give how many there were."""
    return sum(DeadLetter.objects.filter(id__in=some).delete()[0] for some in _batches(ids, DELETED_AT_ONCE))


def _replay_batch(
    ids: Sequence[UUID],
    done: Replay,
    *,
    find: Callable[[DeadLetter], ReceivedMessage | None],
    producer: Producer,
) -> None:
    still_open = DeadLetter.objects.select_for_update(skip_locked=True).filter(replayed_at=None)
    letters = still_open.filter(id__in=ids).order_by("topic", "partition", "offset")
    found = {letter.id: find(letter) for letter in letters}
    deliveries = _Deliveries()
    for letter_id, original in found.items():
        if original is None:
            deliveries.refusals[letter_id] = NO_ORIGINAL
        elif original.headers is None:
            deliveries.refusals[letter_id] = UNREADABLE_HEADERS
        else:
            report = deliveries.report_for(letter_id)
            _send(producer, original, headers=original.headers, report=report)
    producer.flush(DELIVERY_TIMEOUT_S + 1)
    DeadLetter.objects.filter(id__in=deliveries.confirmed).update(replayed_at=Now())
    done.sent += len(deliveries.confirmed)
    done.passed_over += len(ids) - len(found)
    for letter_id in found.keys() - set(deliveries.confirmed):
        done.failed.append((letter_id, deliveries.refusals.get(letter_id, "Kafka did not confirm it")))


def _send(
    producer: Producer,
    original: ReceivedMessage,
    *,
    headers: Headers,
    report: Callable[[KafkaError | None, Message], None],
) -> None:
    producer.produce(
        original.topic,
        key=original.key,
        value=original.value,
        headers=list(headers),
        on_delivery=report,
    )


class _Deliveries:
    """The delivery reports of a batch; they come while the producer is flushed."""

    def __init__(self) -> None:
        self.confirmed: list[UUID] = []
        self.refusals: dict[UUID, str] = {}

    def report_for(self, letter_id: UUID) -> Callable[[KafkaError | None, Message], None]:
        def report(error: KafkaError | None, _message: Message) -> None:
            if error is None:
                self.confirmed.append(letter_id)
            else:
                self.refusals[letter_id] = f"Kafka refused it: {error.str()}"

        return report


def _producer() -> Producer:
    return Producer(
        {
            "bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS,
            "acks": "all",
            "enable.idempotence": True,
            "message.timeout.ms": int(DELIVERY_TIMEOUT_S * 1000),
            # The broker's limit counts, not librdkafka's: it took the message before.
            "message.max.bytes": 100_000_000,
        },
        logger=_silent,
    )


def _batches(ids: Sequence[UUID], size: int) -> Iterator[Sequence[UUID]]:
    unique = list(dict.fromkeys(ids))
    for first in range(0, len(unique), size):
        yield unique[first : first + size]


def _bytes(value: bytes | memoryview | None) -> bytes | None:
    return None if value is None else bytes(value)
