"""The whole service at a glance, for operators: what there is, how old it is, and what is not right."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from confluent_kafka import KafkaException
from django.conf import settings
from django.db import Error, connection
from django.db.models import Count
from django.utils import timezone

from consumers.averages.dead_letter_rows import DeadLettersFullError, check_room
from consumers.reading.lag import PartitionLag, read_lag
from marketdata.health import PartHealth, check_parts
from prices.clock import database_now
from prices.database.errors import database_trouble
from prices.database.uuid7 import CLOCKS_AGREE_WITHIN, first_id_at
from prices.jobs.listing import select_jobs
from prices.ledger.missed_slots import missed_slots
from prices.maintenance.ending_calendars import ending_calendars
from prices.maintenance.partitions import spans_in_default
from prices.models import BeatTerm, DeadLetter, JobStatus, PollRun, PricePoint, SymbolAverage
from prices.models.poll_run import RunState
from prices.publishing.kafka_clients import make_admin
from prices.publishing.topic_settings import look_at_topic

# Beyond these, what should have been done by itself was not.
BEAT_LATE_S = 10
OUTBOX_LATE_S = 10
RUN_LATE_S = 30
CONSUMER_LATE_S = 30
# So long at least it is told that a clock was set back.
SET_BACK_TOLD_S = 600
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class SetBack:
    """PostgreSQL's clock was set back at this moment, by so many seconds."""

    at: datetime
    seconds: float

    @property
    def shown_until(self) -> datetime:
        """When the times that it had given have come, and nobody needs to know any more; a day at most."""
        told_for = min(max(self.seconds, SET_BACK_TOLD_S), DAY_S)
        return self.at + timedelta(seconds=told_for)

    def __str__(self) -> str:
        dated_until = self.at + timedelta(seconds=self.seconds)
        return (
            f"PostgreSQL's was set back by {self.seconds:.0f} s at {self.at:%Y-%m-%d %H:%M:%S} UTC:"
            f" what was stored before is dated up to {dated_until:%Y-%m-%d %H:%M:%S} UTC"
        )


@dataclass(frozen=True, slots=True)
class Stored:
    """What PostgreSQL holds; moments are None where there is no such row.

    `leader` is the beat that led last, by its host and process, and `last_lead` when it did.
    `dead_letters_full` says so where there is no room for more of them. `unpartitioned` has the first and
    the last day of rows that lie in no partition of their time, for each table with such rows.
    `missed_slots` has the slots of the last 24 hours that were not polled, by reason.
    """

    jobs: dict[str, int]
    leader: str
    last_lead: datetime | None
    open_runs: int
    oldest_run: datetime | None
    pending_points: int
    oldest_pending: datetime | None
    last_average: datetime | None
    set_back: SetBack | None
    open_dead_letters: int
    dead_letters_full: str | None
    unpartitioned: dict[str, tuple[date, date]]
    missed_slots: dict[str, int]


@dataclass(frozen=True, slots=True)
class Status:
    """The service at `now`. `stored` and `lag` are None where they cannot be told just now.

    `notes` are for people to know; unlike problems they make nothing wrong yet.
    """

    now: datetime
    parts: Sequence[PartHealth]
    stored: Stored | None
    lag: Sequence[PartitionLag] | None
    problems: Sequence[str]
    notes: Sequence[str]

    @property
    def messages_behind(self) -> int | None:
        """How many messages the consumer group is behind, over all partitions."""
        return None if self.lag is None else sum(each.messages for each in self.lag)

    def age_s(self, moment: datetime | None) -> float | None:
        """Return how many seconds ago a moment was; below 0 where PostgreSQL's clock was set back since."""
        # Not -0.0.
        return None if moment is None else round((self.now - moment).total_seconds(), 1) + 0.0


def read_status(*, now: datetime | None = None) -> Status:
    """Look at every part and at what it holds. A part that is away is a problem, and no error.

    `now`: by default the time by PostgreSQL's clock once its rows are read, so that none of them is newer.
    """
    parts = check_parts()
    away = {part.name for part in parts if part.problem}
    problems = [f"{part.name}: {part.problem}" for part in parts if part.problem]
    stored = None if "postgresql" in away else _read_stored(problems, now=now)
    # Before Kafka is asked, which may take seconds.
    now = now or _now()
    lag = None if "kafka" in away else _read_lag(problems)
    if stored is not None:
        problems += _problems_of(stored, now=now)
    if lag is not None:
        problems += _problems_of_consumer(lag, stored, now=now)
    notes = [] if stored is None else _notes_on_calendars(now=now)
    return Status(now, parts, stored, lag, problems, notes)


def _now() -> datetime:
    """Return the time by PostgreSQL's clock, which is in what is read; by this host's where it is away."""
    try:
        return database_now()
    except Error:
        return timezone.now()


def _notes_on_calendars(*, now: datetime) -> list[str]:
    return [
        f"calendar {code}: holidays are known until {end}; then its usual week goes on, unless a newer"
        " exchange-calendars is installed"
        for code, end in ending_calendars(now=now).items()
    ]


def _read_stored(problems: list[str], *, now: datetime | None) -> Stored | None:
    pending = (
        PricePoint.objects.filter(published_at=None).order_by("id").values_list("received_at", flat=True)
    )
    runs = PollRun.objects.filter(state=RunState.CLAIMED).order_by("id")
    terms = BeatTerm.objects.order_by("-id").values_list("holder", "renewed_at")
    counts = select_jobs().order_by().values_list("status").annotate(Count("id"))
    try:
        moment = now or database_now()
        # Later ids are of a clock that was ahead, and would stand last until their time comes.
        known = first_id_at(moment + CLOCKS_AGREE_WITHIN)
        averages = SymbolAverage.objects.filter(event_id__lt=known).order_by("-event_id")
        leader, last_lead = terms.first() or ("", None)
        return Stored(
            jobs=dict.fromkeys(JobStatus.values, 0) | dict(counts),
            leader=leader,
            last_lead=last_lead,
            open_runs=runs.count(),
            oldest_run=runs.values_list("started_at", flat=True).first(),
            pending_points=pending.count(),
            oldest_pending=pending.values_list("received_at", flat=True).first(),
            last_average=averages.values_list("created_at", flat=True).first(),
            set_back=_last_set_back(),
            open_dead_letters=DeadLetter.objects.filter(replayed_at=None).count(),
            dead_letters_full=_fullness_of_dead_letters(),
            unpartitioned=spans_in_default(),
            missed_slots=missed_slots(since=moment - timedelta(days=1)),
        )
    except Error as error:
        problems.append(f"postgresql: {database_trouble(error) or str(error).partition(chr(10))[0]}")
        return None


def _last_set_back() -> SetBack | None:
    last = BeatTerm.objects.exclude(clock_ahead_s=None).order_by("-id").first()
    return (
        None if last is None or last.clock_ahead_s is None else SetBack(last.renewed_at, last.clock_ahead_s)
    )


def _fullness_of_dead_letters() -> str | None:
    with connection.cursor() as cursor:
        try:
            check_room(cursor)
        except DeadLettersFullError as error:
            return str(error)
    return None


def _read_lag(problems: list[str]) -> list[PartitionLag] | None:
    kafka = make_admin()
    try:
        findings = look_at_topic(kafka)
        problems += [f"topic: {each}" for each in (findings.loses, *findings.odd) if each]
        return read_lag()
    except KafkaException as error:
        problems.append(f"kafka: {kafka.reason(error)}")
        return None


def _problems_of(stored: Stored, *, now: datetime) -> list[str]:
    problems = []
    set_back = stored.set_back
    if set_back is not None and now < set_back.shown_until:
        problems.append(f"clock: {set_back}")
    led_lately = stored.last_lead is not None and not _is_late(stored.last_lead, BEAT_LATE_S, now=now)
    if stored.jobs[JobStatus.ACTIVE] and not led_lately:
        problems.append(f"beat: none has led for over {BEAT_LATE_S} s, and nothing is polled: is it running?")
    outbox_s = settings.OUTBOX_SWEEP_AFTER_S + OUTBOX_LATE_S
    if _is_late(stored.oldest_pending, outbox_s, now=now):
        problems.append(
            f"outbox: a point has waited for over {outbox_s} s: is `maintenance` running? Its log names what"
            " Kafka refuses"
        )
    run_s = settings.POLL_DEADLINE_S + RUN_LATE_S
    if _is_late(stored.oldest_run, run_s, now=now):
        problems.append(f"polls: one has been open for over {run_s} s: is `maintenance` running?")
    if stored.dead_letters_full:
        problems.append(f"consumer: {stored.dead_letters_full}")
    elif stored.open_dead_letters:
        problems.append("dead letters: replay or discard them by `manage.py dead_letters`")
    return problems


def _problems_of_consumer(lag: Sequence[PartitionLag], stored: Stored | None, *, now: datetime) -> list[str]:
    problems = []
    gone = [str(each.partition) for each in lag if each.is_gone]
    if gone:
        problems.append(
            f"consumer: Kafka no longer has the group's position in partition {', '.join(gone)}:"
            " `manage.py consume_prices` says what to do"
        )
    elif any(each.messages for each in lag) and stored is not None:
        last = stored.last_average
        if last is None or _is_late(last, CONSUMER_LATE_S, now=now):
            problems.append(
                f"consumer: messages wait, and no average was stored for {CONSUMER_LATE_S} s: is it running?"
            )
    return problems


def _is_late(moment: datetime | None, most_s: int, *, now: datetime) -> bool:
    return moment is not None and now - moment > timedelta(seconds=most_s)
