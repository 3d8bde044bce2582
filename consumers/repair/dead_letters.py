"""Dead letters: found, sent to their topic again, and deleted, however many there are.

A replay is at least once: where it is cut off after Kafka has taken a message, the next one sends that
again. That doubles nothing: a message that is sound by now has one event id, and so one average; one that
is not becomes a new dead letter, at its new offset.

A replay sends key, value and headers as they were. A letter whose headers are not known is never sent: they
tell the version, and whether the provider gave a time, so without them a message may mean something else.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from django.db import transaction
from django.db.models import BinaryField, Func, IntegerField, QuerySet, Value
from django.db.models.functions import Coalesce, Now, Substr

from consumers.reading.decoding import from_stored
from prices.clock import database_now
from prices.database.uuid7 import epoch_ms
from prices.models import DeadLetter
from prices.models.raw_market_data import OctetLength
from prices.publishing.kafka_clients import delivery_error, make_producer

ANSWER_TIMEOUT_S = 5.0
DELIVERY_TIMEOUT_S = 10.0
# What is sent, or deleted, in one transaction. Messages may have a megabyte each, and all are held at once.
SENT_AT_ONCE = 1_000
BYTES_AT_ONCE = 16_000_000
DELETED_AT_ONCE = 5_000
KEY_BYTES = 64
NAMED_FAILURES = 5

NO_HEADERS = (
    "its headers are not known, and without them it may mean something else;"
    " if it is a price of this service, `manage.py republish --missing` sends it"
)
NO_SUCH_TOPIC = "Kafka has no topic of this name"
UNSENDABLE_HEADERS = "the name of a header is no UTF-8, and the Kafka client can send no such name"

# Kafka, not the message, is why it was not sent: so would be the next.
_AWAY = {KafkaError._MSG_TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN}


class UnknownLettersError(LookupError):
    """Ids that no dead letter has; the text names the first."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which dead letters are meant: the newest `limit` of those that fit, in any case of `reason`."""

    reason: str | None = None
    since: datetime | None = None
    topic: str | None = None
    limit: int | None = None
    is_replayed: bool | None = None


@dataclass(slots=True)
class Replay:
    """What became of a replay; `skipped` were replayed before, or are being replayed just now.

    Of those that failed the first are named, with the reason.
    """

    sent: int = 0
    skipped: int = 0
    failed: int = 0
    failures: list[tuple[UUID, str]] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Return how many letters were looked at."""
        return self.sent + self.skipped + self.failed

    def add_failure(self, letter: UUID, reason: str) -> None:
        """Count a letter that was not sent."""
        self.failed += 1
        if len(self.failures) < NAMED_FAILURES:
            self.failures.append((letter, reason))


@dataclass(frozen=True, slots=True)
class Summary:
    """A dead letter in short: the first 64 bytes of the key, and how long key and value are."""

    letter: DeadLetter
    key: bytes | None
    key_bytes: int | None
    value_bytes: int | None


def matching(wanted: Filter) -> QuerySet[DeadLetter]:
    """Return the dead letters that fit, newest first."""
    letters = DeadLetter.objects.order_by("-id")
    if wanted.is_replayed is not None:
        letters = letters.filter(replayed_at__isnull=not wanted.is_replayed)
    if wanted.reason is not None:
        letters = letters.filter(reason__icontains=wanted.reason)
    if wanted.since is not None:
        letters = letters.filter(created_at__gte=wanted.since)
    if wanted.topic is not None:
        letters = letters.filter(topic=wanted.topic)
    return letters[: wanted.limit]


def select(wanted: Filter) -> QuerySet[DeadLetter]:
    """Return the dead letters that fit and are there now, to be replayed or discarded.

    What comes later is not among them: a replay does not send again what came back from it.
    """
    letters = matching(replace(wanted, limit=None))
    ids = letters.values_list("id", flat=True)
    newest = ids.first()
    if newest is None:
        return DeadLetter.objects.none()
    oldest = None if wanted.limit is None else ids[wanted.limit - 1 : wanted.limit].first()
    return letters.filter(id__lte=newest, **({} if oldest is None else {"id__gte": oldest}))


def with_ids(ids: Sequence[UUID]) -> QuerySet[DeadLetter]:
    """Return the dead letters with these ids; raise UnknownLettersError unless each id is one's."""
    letters = DeadLetter.objects.filter(id__in=ids)
    known = set(letters.values_list("id", flat=True))
    unknown = [each for each in ids if each not in known]
    if unknown:
        raise UnknownLettersError(f"No dead letter has the id {unknown[0]}.")
    return letters


def summaries(wanted: Filter) -> list[Summary]:
    """Return those that fit, without the whole of their keys and values."""
    letters = matching(wanted).defer("key", "value", "headers")
    lengths = letters.annotate(
        key_start=Substr("key", 1, KEY_BYTES, output_field=BinaryField()),
        key_bytes=OctetLength("key"),
        value_bytes=OctetLength("value"),
    )
    return [Summary(each, _bytes(each.key_start), each.key_bytes, each.value_bytes) for each in lengths]


def replay(
    letters: QuerySet[DeadLetter], *, on_progress: Callable[[Replay], None] = lambda _: None
) -> Replay:
    """Send the messages of these letters again, oldest first, and note those that Kafka has confirmed.

    A letter fails whose headers are not known, whose topic is gone, or that Kafka refuses. Raises
    KafkaException where Kafka does not answer, or confirms nothing for 10 s; what was confirmed before
    stays noted, and the rest can be replayed again.
    """
    done = Replay()
    producer = _producer()
    topics = set(producer.list_topics(timeout=ANSWER_TIMEOUT_S).topics)
    for ids in _batches_to_send(letters):
        # The rows are locked until they are noted, so that two replays at once send each letter once.
        with transaction.atomic():
            error = _replay_batch(ids, done, producer=producer, topics=topics)
        on_progress(done)
        if error is not None:
            raise KafkaException(error)
    return done


def discard(letters: QuerySet[DeadLetter], *, on_progress: Callable[[int], None] = lambda _: None) -> int:
    """Delete these dead letters; return how many there were."""
    deleted = 0
    for ids in _batches(letters):
        deleted += DeadLetter.objects.filter(id__in=ids).delete()[0]
        on_progress(deleted)
    return deleted


def _batches(letters: QuerySet[DeadLetter]) -> Iterator[list[UUID]]:
    rest = letters.order_by("id").values_list("id", flat=True)
    while ids := list(rest[:DELETED_AT_ONCE]):
        yield ids
        rest = rest.filter(id__gt=ids[-1])


def _batches_to_send(letters: QuerySet[DeadLetter]) -> Iterator[list[UUID]]:
    """Yield the ids in their order, as many at once as have up to BYTES_AT_ONCE, and at least one."""
    size = Coalesce(OctetLength("key"), Value(0)) + Coalesce(OctetLength("value"), Value(0))
    rest = letters.order_by("id").annotate(size=size + Coalesce(_StoredSize("headers"), Value(0)))
    while found := list(rest.values_list("id", "size")[:SENT_AT_ONCE]):
        ids: list[UUID] = []
        total = 0
        for letter_id, size_bytes in found:
            total += size_bytes
            if ids and total > BYTES_AT_ONCE:
                break
            ids.append(letter_id)
        yield ids
        rest = rest.filter(id__gt=ids[-1])


class _StoredSize(Func):
    """The bytes that a value takes in the table."""

    function = "pg_column_size"
    arity = 1
    output_field = IntegerField()


def _replay_batch(
    ids: Sequence[UUID], done: Replay, *, producer: Producer, topics: set[str]
) -> KafkaError | None:
    """Send the letters that are still open and note what was confirmed; return why Kafka took none at all."""
    still_open = DeadLetter.objects.select_for_update(skip_locked=True).filter(id__in=ids, replayed_at=None)
    deliveries = _Deliveries()
    locked = 0
    now_ms = epoch_ms(database_now())
    for letter in still_open.order_by("id"):
        locked += 1
        refusal = _refusal(letter, topics) or _send(
            producer, letter, deliveries.report_for(letter.id), now_ms=now_ms
        )
        if refusal is not None:
            done.add_failure(letter.id, refusal)
        else:
            deliveries.expected.append(letter.id)
    producer.flush(DELIVERY_TIMEOUT_S + 1)
    DeadLetter.objects.filter(id__in=deliveries.confirmed).update(replayed_at=Now())
    done.sent += len(deliveries.confirmed)
    done.skipped += len(ids) - locked
    for letter_id, reason in deliveries.failures():
        done.add_failure(letter_id, reason)
    return deliveries.outage()


def _refusal(letter: DeadLetter, topics: set[str]) -> str | None:
    if letter.headers is None:
        return NO_HEADERS
    # Sent to a topic that is gone, a message would make it anew on brokers that make topics by themselves.
    return None if letter.topic in topics else NO_SUCH_TOPIC


def _send(
    producer: Producer,
    letter: DeadLetter,
    report: Callable[[KafkaError | None, Message], None],
    *,
    now_ms: int,
) -> str | None:
    try:
        headers = from_stored(letter.headers or ())
    except UnicodeDecodeError:
        return UNSENDABLE_HEADERS
    producer.produce(
        letter.topic,
        key=_bytes(letter.key),
        value=_bytes(letter.value),
        headers=headers,
        # By PostgreSQL's clock, as the outbox does: this host's own may be wrong.
        timestamp=now_ms,
        on_delivery=report,
    )
    return None


class _Deliveries:
    """The delivery reports of a batch; they come while the producer is flushed."""

    def __init__(self) -> None:
        self.expected: list[UUID] = []
        self.confirmed: list[UUID] = []
        self._errors: dict[UUID, KafkaError] = {}

    def report_for(self, letter_id: UUID) -> Callable[[KafkaError | None, Message], None]:
        def report(error: KafkaError | None, message: Message) -> None:
            error = delivery_error(error, message)
            if error is None:
                self.confirmed.append(letter_id)
            else:
                self._errors[letter_id] = error

        return report

    def failures(self) -> Iterator[tuple[UUID, str]]:
        confirmed = set(self.confirmed)
        for letter_id in self.expected:
            if letter_id not in confirmed:
                error = self._errors.get(letter_id)
                yield letter_id, f"Kafka refused it: {error.str()}" if error else "Kafka did not confirm it"

    def outage(self) -> KafkaError | None:
        """Return the error by which Kafka confirmed none of the messages; None where that is not so."""
        if self.confirmed or not self.expected:
            return None
        return next((error for error in self._errors.values() if error.code() in _AWAY), None)


def _producer() -> Producer:
    return make_producer(
        {
            "message.timeout.ms": int(DELIVERY_TIMEOUT_S * 1000),
            # The broker's limit counts, not librdkafka's: it took the message before.
            "message.max.bytes": 100_000_000,
        }
    )


def _bytes(value: bytes | memoryview | None) -> bytes | None:
    return None if value is None else bytes(value)
