"""The whole service at a glance, for operators: what there is, how old it is, and what is not right."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from confluent_kafka import KafkaException
from django.conf import settings
from django.db import Error
from django.db.models import Count

from consumers.lag import PartitionLag, read_lag
from marketdata.health import PartHealth, check_parts
from prices.models import BeatTerm, DeadLetter, JobStatus, PollJob, PollRun, PricePoint, SymbolAverage
from prices.models.poll_run import RunState

# Beyond these, what should have been done by itself was not.
BEAT_LATE_S = 10
OUTBOX_LATE_S = 10
RUN_LATE_S = 30
CONSUMER_LATE_S = 30


@dataclass(frozen=True, slots=True)
class Stored:
    """What PostgreSQL holds; moments are None where there is no such row.

    `leader` is the beat that led last, by its host and process, and `last_lead` when it did.
    """

    jobs: dict[str, int]
    leader: str
    last_lead: datetime | None
    open_runs: int
    oldest_run: datetime | None
    pending_points: int
    oldest_pending: datetime | None
    last_average: datetime | None
    open_dead_letters: int


@dataclass(frozen=True, slots=True)
class Status:
    """The service at `now`. `stored` and `lag` are None where they cannot be told just now."""

    now: datetime
    parts: Sequence[PartHealth]
    stored: Stored | None
    lag: Sequence[PartitionLag] | None
    problems: Sequence[str]

    @property
    def messages_behind(self) -> int | None:
        """How many messages the consumer group is behind, over all partitions."""
        return None if self.lag is None else sum(each.messages for each in self.lag)

    def age_s(self, moment: datetime | None) -> float | None:
        """Give how many seconds ago a moment was."""
        return None if moment is None else round((self.now - moment).total_seconds(), 1)


def read_status(*, now: datetime) -> Status:
    """Look at every part and at what it holds. A part that is away is a problem, and no error."""
    parts = check_parts()
    away = {part.name for part in parts if part.problem}
    problems = [f"{part.name}: {part.problem}" for part in parts if part.problem]
    stored = None if "postgresql" in away else _read_stored(problems)
    lag = None if "kafka" in away else _read_lag(problems)
    if stored is not None:
        problems += _problems_of(stored, now=now)
    if lag is not None:
        problems += _problems_of_consumer(lag, stored, now=now)
    return Status(now, parts, stored, lag, problems)


def _read_stored(problems: list[str]) -> Stored | None:
    pending = (
        PricePoint.objects.filter(published_at=None).order_by("id").values_list("received_at", flat=True)
    )
    runs = PollRun.objects.filter(state=RunState.CLAIMED).order_by("id")
    averages = SymbolAverage.objects.order_by("-event_id")
    terms = BeatTerm.objects.order_by("-id").values_list("holder", "renewed_at")
    counts = PollJob.objects.order_by().values_list("status").annotate(Count("id"))
    try:
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
            open_dead_letters=DeadLetter.objects.filter(replayed_at=None).count(),
        )
    except Error as error:
        problems.append(f"postgresql: {str(error).partition(chr(10))[0]}")
        return None


def _read_lag(problems: list[str]) -> list[PartitionLag] | None:
    try:
        return read_lag()
    except KafkaException as error:
        problems.append(f"kafka: {error.args[0].str()}")
        return None


def _problems_of(stored: Stored, *, now: datetime) -> list[str]:
    problems = []
    led_lately = stored.last_lead is not None and not _is_late(stored.last_lead, BEAT_LATE_S, now=now)
    if stored.jobs[JobStatus.ACTIVE] and not led_lately:
        problems.append(f"beat: none has led for over {BEAT_LATE_S} s, and nothing is polled: is it running?")
    outbox_s = settings.OUTBOX_SWEEP_AFTER_S + OUTBOX_LATE_S
    if _is_late(stored.oldest_pending, outbox_s, now=now):
        problems.append(f"outbox: a point has waited for over {outbox_s} s: is `upkeep` running?")
    run_s = settings.POLL_DEADLINE_S + RUN_LATE_S
    if _is_late(stored.oldest_run, run_s, now=now):
        problems.append(f"polls: one has been open for over {run_s} s: is `upkeep` running?")
    if stored.open_dead_letters:
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
