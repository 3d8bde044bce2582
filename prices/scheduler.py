"""The beat scheduler: django-celery-beat's, with poll jobs on their fixed grid."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from celery.schedules import schedstate, schedule
from django.db import DatabaseError, InterfaceError, connection
from django.db.models import QuerySet
from django_celery_beat.models import PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler, ModelEntry
from kombu.exceptions import OperationalError

from prices.claims import skip_slots
from prices.heartbeat import touch_heartbeat
from prices.jobs import POLL_TOGETHER_TASK, periodic_task_fields, provider_of_queue
from prices.models import PollJob
from prices.slots import next_slot, phase_of
from providers.registry import get_provider

log = structlog.get_logger(__name__)

JOBS_IN_A_MESSAGE = 100
# Jobs of longer intervals than this (seconds) are sent again where Redis does not take their message.
SENT_AGAIN_ABOVE_S = 10
_TWO_SYMBOLS = ("A", "B")


class GridSchedule(schedule):
    """Due at phase + k x interval, whenever the last run was: it cannot drift."""

    def __init__(
        self,
        interval: int,
        phase: timedelta,
        *,
        nowfun: Callable[[], datetime] | None = None,
    ) -> None:
        super().__init__(run_every=timedelta(seconds=interval), nowfun=nowfun or _utc_now)
        self.interval = interval
        self.step = timedelta(seconds=interval)
        self.phase = phase

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Tell whether a slot has come since `last_run_at`, and the seconds until the next one."""
        now = self.now()
        # A time ahead of the clock was noted before the clock was set back: it tells nothing.
        last_run_at = last_run_at if last_run_at <= now else now - 2 * self.step
        due = next_slot(last_run_at, self.interval, self.phase) <= now
        following = next_slot(now, self.interval, self.phase)
        return schedstate(is_due=due, next=(following - now).total_seconds())


def _utc_now() -> datetime:
    return datetime.now(UTC)


class PriceEntry(ModelEntry):  # type: ignore[misc]  # django-celery-beat has no types
    """A periodic task; a poll job's is due on the job's grid.

    Of a poll job's periodic task only `enabled` counts: the rest is taken from the job, whatever
    was written over it by hand.
    """

    def __init__(self, model: PeriodicTask, app: Any = None) -> None:
        never_ran = model.last_run_at is None
        job: PollJob | None = getattr(model, "poll_job", None)
        if job is not None:
            for name, value in periodic_task_fields(job).items():
                setattr(model, name, value)
        super().__init__(model, app=app)
        if job is None:
            return
        self.schedule = GridSchedule(job.interval, phase_of(job.provider, job.interval, job.symbols))
        if never_ran:
            # A new or resumed job does not wait for its next slot, which may be a day away.
            self.last_run_at = model.last_run_at = _utc_now() - 2 * self.schedule.step

    def save(self) -> None:
        """Write when the task last ran, and nothing else: a task switched off meanwhile stays off."""
        PeriodicTask.objects.filter(pk=self.model.pk, enabled=True).update(
            last_run_at=self.model.last_run_at, total_run_count=self.model.total_run_count
        )


def _polled_together(queue: str, entries: Sequence[PriceEntry]) -> list[list[PriceEntry]]:
    """Give the entries as groups that one message is for.

    A provider that answers for many symbols at once gets them all. One that is asked symbol by symbol gets
    the jobs of the same symbols together, and the others side by side: they would wait for each other.
    """
    provider = provider_of_queue(queue)
    if provider is not None and len(get_provider(provider).plan(_TWO_SYMBOLS)) == 1:
        starts = range(0, len(entries), JOBS_IN_A_MESSAGE)
        return [list(entries[start : start + JOBS_IN_A_MESSAGE]) for start in starts]
    by_symbols: dict[tuple[str, ...], list[PriceEntry]] = {}
    for entry in entries:
        by_symbols.setdefault(tuple(sorted(entry.model.poll_job.symbols)), []).append(entry)
    return list(by_symbols.values())


class PriceScheduler(DatabaseScheduler):  # type: ignore[misc]  # django-celery-beat has no types
    """Beat's scheduler: the poll jobs that are due together go out together, in one message for each queue.

    Its heartbeat tells that its loop turns.
    """

    Entry = PriceEntry
    # Celery's own would wait for Redis where that is away at the start, and nothing would tick meanwhile.
    producer = None
    _database_away = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._due: dict[str, list[PriceEntry]] = {}
        super().__init__(*args, **kwargs)

    @property
    def schedule(self) -> dict[str, ModelEntry]:
        """Give the entries by name, read anew after changes; while PostgreSQL is away, as they were."""
        entries: dict[str, ModelEntry]
        try:
            entries = DatabaseScheduler.schedule.fget(self)
        except (DatabaseError, InterfaceError) as error:
            entries = self._schedule
            if entries is None:
                raise
            self._note_database(away=True, reason=str(error).partition("\n")[0])
            connection.close()
            # The change that was to be read is still to be read.
            self._initial_read = True
            return entries
        self._note_database(away=False)
        return entries

    def _note_database(self, *, away: bool, reason: str = "") -> None:
        if away and not self._database_away:
            log.error("beat.database_away", reason=reason)
        elif self._database_away and not away:
            log.info("beat.database_back")
        self._database_away = away

    def all_as_schedule(self) -> dict[str, ModelEntry]:
        """Give the enabled tasks as entries; one that cannot be read is left out and named."""
        entries = {}
        for model in self.enabled_models():
            try:
                entries[model.name] = self.Entry(model, app=self.app)
            except (ValueError, TypeError, AttributeError) as error:
                log.error("beat.task_unreadable", task=model.name, reason=str(error))  # noqa: TRY400
        return entries

    def enabled_models_qs(self) -> QuerySet[PeriodicTask]:
        """Give the enabled tasks, each with its poll job where it has one."""
        tasks: QuerySet[PeriodicTask] = super().enabled_models_qs()
        return tasks.select_related("poll_job", "interval", "crontab", "solar", "clocked")

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send what is due; give the seconds until the next is."""
        touch_heartbeat("beat")
        seconds: float = super().tick(*args, **kwargs)
        # The stock tick takes one due entry at a time, and tells by a wait of 0 that there may be more.
        if seconds > 0 or sum(len(entries) for entries in self._due.values()) >= JOBS_IN_A_MESSAGE:
            self.send_due_jobs()
        return seconds

    def apply_entry(self, entry: ModelEntry, producer: Any = None) -> None:
        """Send a task; a poll job waits for the others that are due in this moment."""
        if isinstance(entry.schedule, GridSchedule):
            self._due.setdefault(entry.options["queue"], []).append(entry)
        else:
            super().apply_entry(entry, producer=producer)

    def send_due_jobs(self) -> None:
        """Send the poll jobs that are due; after a message that Redis does not take, none is tried."""
        due, self._due = self._due, {}
        takes_messages = True
        for queue, entries in due.items():
            for together in _polled_together(queue, entries):
                # Each try takes most of a second, and beat has more to do.
                takes_messages = takes_messages and self._send(queue, together)
                if not takes_messages:
                    self._keep_or_note(queue, together)

    def _send(self, queue: str, entries: Sequence[PriceEntry]) -> bool:
        job_ids = [str(entry.model.poll_job.id) for entry in entries]
        # A job whose message waited for a whole interval is polled by the next slot's, and by that one alone.
        expires_s = max(entry.schedule.interval for entry in entries)
        try:
            self.app.send_task(POLL_TOGETHER_TASK, args=[job_ids], queue=queue, expires=expires_s)
        except OperationalError as error:
            log.error("beat.not_sent", queue=queue, jobs=len(job_ids), reason=str(error))  # noqa: TRY400
            return False
        return True

    def _keep_or_note(self, queue: str, entries: Sequence[PriceEntry]) -> None:
        # A slot that lasts is sent with the next ones; one that is over by then is noted as left out.
        over = [entry for entry in entries if entry.schedule.interval <= SENT_AGAIN_ABOVE_S]
        kept = self._due.setdefault(queue, [])
        kept += [entry for entry in entries if entry not in over and entry not in kept]
        try:
            skip_slots([entry.model.poll_job.id for entry in over], "Redis takes no messages", now=_utc_now())
        except (DatabaseError, InterfaceError) as error:
            log.error("beat.not_noted", jobs=len(over), reason=str(error).partition("\n")[0])  # noqa: TRY400
            connection.close()

    def close(self) -> None:
        """End: what is due is sent first."""
        self.send_due_jobs()
        super().close()
