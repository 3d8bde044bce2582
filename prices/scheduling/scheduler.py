"""The beat scheduler: django-celery-beat's for every periodic task, and a heap of its own for poll jobs.

Any number of beats may run: one leads and sends, the others keep their boards up to date and take over
within three seconds. A slot that two of them send is polled once all the same (prices/ledger/runs.py).
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from celery.beat import SchedulingError
from celery.exceptions import CeleryError
from django.db import DatabaseError, InterfaceError, connection
from django.db.models import Q, QuerySet
from django.utils import timezone
from django_celery_beat.models import PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler, ModelEntry
from kombu.exceptions import OperationalError

from prices.clock import name_process
from prices.database.uuid7 import EPOCH, epoch_ms
from prices.heartbeat import touch_heartbeat
from prices.outage_log import Outage
from prices.scheduling.dispatch import Sender
from prices.scheduling.due_heap import DueHeap
from prices.scheduling.job_sync import LOOK_EACH_S, JobSync
from prices.scheduling.known_hours import KnownHours
from prices.scheduling.leader_lease import BeatLease, Term
from providers.rate_limits.redis_errors import redis_problem

log = structlog.get_logger(__name__)

# Jobs that fall due within so long go out together.
TICK_S = 0.05
# A standby looks so often whether it is to lead.
STANDBY_S = 0.25
# The stock tick looks for changes each time, and it is called up to 20 times a second.
OTHERS_EACH_S = 0.5
SYNC_EACH_S = 2.0
# Renewed each half second: since the last renewal nobody may have sent anything.
BEFORE_LAST_RENEWAL = timedelta(seconds=0.6)
CLOCK_SET_BACK_MS = 1_000
# No turn takes so long: the host slept, or the clock was set.
CLOCK_RAN_AHEAD_MS = 10_000


# Beats on several hosts write when tasks ran, each by its own clock.
RAN_AHEAD_BEYOND = timedelta(seconds=1)


class PriceEntry(ModelEntry):  # type: ignore[misc]  # django-celery-beat has no types
    """A periodic task that is no poll job's."""

    last_run_at: datetime

    def save(self) -> None:
        """Write when the task last ran, and nothing else: a task switched off meanwhile stays off."""
        ran_at = self.model.last_run_at
        # A beat that led before may write late: what another one wrote since then stays, unless its clock was
        # ahead.
        written_since = Q(last_run_at__gt=ran_at, last_run_at__lte=timezone.now() + RAN_AHEAD_BEYOND)
        PeriodicTask.objects.filter(pk=self.model.pk, enabled=True).exclude(written_since).update(
            last_run_at=ran_at, total_run_count=self.model.total_run_count
        )

    def forget_run_to_come(self) -> bool:
        """Take a last run that lies in the time to come for one of now; return whether there was such a one.

        The clock was ahead when it was written: by it the task would not be due until then.
        """
        now = timezone.now()
        if self.last_run_at <= now + RAN_AHEAD_BEYOND:
            return False
        self.last_run_at = self.model.last_run_at = now
        return True


class PollJobs:
    """The poll jobs of a beat: kept on a heap, and sent when they are due while it leads."""

    def __init__(self, app: Any, redis_outage: Outage, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._due_heap = DueHeap(KnownHours())
        self._job_sync = JobSync(self._due_heap)
        self._sender = Sender(app, redis_outage, now_ms)
        self._latest = 0

    def follow(self) -> None:
        """Bring the heap up to date."""
        self._job_sync.refresh(self._now_ms())

    def begin(self, term: Term) -> None:
        """Begin to lead: go on where the one before stopped."""
        self._sender.forget()
        self._job_sync.refresh(self._now_ms())
        since = term.led_before - BEFORE_LAST_RENEWAL if term.led_before else EPOCH
        self._latest = self._now_ms()
        self._due_heap.restart(since=epoch_ms(since), now=self._latest)

    def send_due(self) -> None:
        """Send what is due, and what is new."""
        self._follow_clock()
        # What is due is taken first: a change must not move a slot that has come.
        due = self._due_heap.pop_due(self._now_ms())
        try:
            self.follow()
        finally:
            self._sender.send([*due, *self._due_heap.pop_due(self._now_ms())])

    def knows(self, job_id: UUID) -> bool:
        """Return whether the job is on the heap: it will be sent."""
        return str(job_id) in self._due_heap

    def seconds_to_next(self) -> float:
        """Return how long until the next slot comes."""
        following = self._due_heap.next_due()
        return float("inf") if following is None else max(following - self._now_ms(), 0) / 1000

    def _follow_clock(self) -> None:
        now = self._now_ms()
        if now < self._latest - CLOCK_SET_BACK_MS:
            # Else nothing would be due until the clock is where it was.
            log.warning("beat.clock_set_back", seconds=(self._latest - now) // 1000)
            self._due_heap.restart(since=now, now=now)
        elif 0 < self._latest < now - CLOCK_RAN_AHEAD_MS:
            # What came due meanwhile is an outage's: not all of it is sent now.
            log.warning("beat.clock_ran_ahead", seconds=(now - self._latest) // 1000)
            self._due_heap.restart(since=self._latest, now=now)
        self._latest = now


class PriceScheduler(DatabaseScheduler):  # type: ignore[misc]  # django-celery-beat has no types
    """Beat's scheduler. Its heartbeat tells that its loop turns, as leader or not."""

    Entry = PriceEntry
    # Celery's own would wait for Redis where that is away at the start, and nothing would tick meanwhile.
    producer = None
    sync_every = SYNC_EACH_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        name_process("beat")
        self._lease = BeatLease()
        self._term: Term | None = None
        # The term in which this beat found its own periodic tasks, or wrote them.
        self._written_in: int | None = None
        self._others_at = float("-inf")
        self._trouble = Outage(began="beat.interrupted", ended="beat.recovered")
        self._redis = Outage(began="beat.redis_away", ended="beat.redis_back")
        super().__init__(*args, **kwargs)
        self._jobs = PollJobs(self.app, self._redis, lambda: self._lease.now_ms())

    def setup_schedule(self) -> None:
        """Leave it to the moment in which this beat leads: PostgreSQL may be away, or another beat lead."""

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send what is due if this beat leads; return the seconds until the next turn."""
        touch_heartbeat("beat")
        self._lease.keep()
        try:
            seconds = self._turn() if self._leads() else self._stand_by()
        except (DatabaseError, InterfaceError) as error:
            self._trouble.begin(str(error).partition("\n")[0])
            connection.close()
            return STANDBY_S
        self._trouble.end()
        return seconds

    def apply_entry(self, entry: ModelEntry, producer: Any = None) -> None:
        """Send a periodic task, or say in the log why not: once, if Redis does not take it."""
        try:
            self.apply_async(entry, producer=producer, advance=False)
        except SchedulingError as error:
            if isinstance(error.__context__, OperationalError):
                self._redis.begin(f"Redis {redis_problem(error)}")
            else:
                log.exception("beat.task_not_sent", task=entry.name)
        else:
            self._redis.end()

    def reserve(self, entry: ModelEntry) -> ModelEntry:
        """Note that a task is being sent, also where the schedule is read from: a reload fires it no more."""
        following = super().reserve(entry)
        self._schedule[entry.name] = following
        return following

    def sync(self) -> None:
        """Write when tasks last ran; what PostgreSQL does not take now is written the next time."""
        try:
            for name in list(self._dirty):
                if name in (self._schedule or {}):
                    self._schedule[name].save()
                self._dirty.discard(name)
        except (DatabaseError, InterfaceError) as error:
            self._trouble.begin(str(error).partition("\n")[0])
            connection.close()

    @property
    def schedule(self) -> dict[str, ModelEntry]:
        """Return the entries by name, read anew after changes. Raises what the database raises."""
        try:
            entries: dict[str, ModelEntry] = DatabaseScheduler.schedule.fget(self)
        except (DatabaseError, InterfaceError):
            # The change that was to be read is still to be read.
            self._initial_read = True
            raise
        return entries

    def all_as_schedule(self) -> dict[str, ModelEntry]:
        """Return the enabled tasks as entries; one that cannot be read is left out and named."""
        entries = {}
        for model in self.enabled_models():
            self._note_unwritten_run(model)
            try:
                entries[model.name] = self.Entry(model, app=self.app)
                entries[model.name].forget_run_to_come()
            except (ValueError, TypeError, AttributeError, CeleryError) as error:
                log.error("beat.task_unreadable", task=model.name, reason=str(error))  # noqa: TRY400
        return entries

    def _note_unwritten_run(self, model: PeriodicTask) -> None:
        # When it last ran could not be written yet: by its row alone it might be due once more.
        known = (self._schedule or {}).get(model.name) if model.name in self._dirty else None
        if known is not None and known.last_run_at > (model.last_run_at or EPOCH):
            model.last_run_at, model.total_run_count = known.last_run_at, known.total_run_count

    def schedule_changed(self) -> bool:
        """Return whether the tasks are to be read again: their mark has changed, whatever clock wrote it."""
        known = self._last_timestamp
        later: bool = super().schedule_changed()
        return later or (known is not None and self._last_timestamp != known)

    def enabled_models_qs(self) -> QuerySet[PeriodicTask]:
        """Return the enabled tasks that are not poll jobs'."""
        tasks: QuerySet[PeriodicTask] = super().enabled_models_qs()
        return tasks.filter(poll_job=None).select_related("interval", "crontab", "solar", "clocked")

    def close(self) -> None:
        """End: what is due is sent first, and another beat may lead at once."""
        try:
            if self._lease.term is not None:
                self._jobs.send_due()
            super().close()
        finally:
            self._lease.release()

    def _leads(self) -> bool:
        term = self._lease.term
        if term is None:
            self._term = None
        elif self._term != term:
            self._term = None
            if self._take_over(term):
                self._jobs.begin(term)
                self._term = term
        return self._term is not None

    def _take_over(self, term: Term) -> bool:
        """Read the periodic tasks; False where some of the service's own could not be written."""
        # Read before the tasks: what changes in between is read again.
        self._last_timestamp = self.Changes.last_change() or EPOCH
        self._initial_read, self._heap, self._others_at = True, None, float("-inf")
        # Where nobody else has led since, they are as this beat has written them. To write them takes thirty
        # statements: a database slow enough for the lease to end meanwhile would have them written for ever.
        if self._written_in not in {term.id, term.id - 1} or not self._has_own_tasks():
            super().setup_schedule()
        is_complete = self._has_own_tasks()
        self._written_in = term.id if is_complete else None
        return is_complete

    def _has_own_tasks(self) -> bool:
        names = set(self.app.conf.beat_schedule)
        found: int = PeriodicTask.objects.filter(name__in=names).count()
        return found == len(names)

    def _stand_by(self) -> float:
        self._jobs.follow()
        return STANDBY_S

    def _turn(self) -> float:
        self._jobs.send_due()
        # Where Redis hangs that takes most of the time for which the lease is trusted.
        self._lease.keep()
        now = time.monotonic()
        if now >= self._others_at and self._lease.term == self._term:
            self._follow_own_clock()
            self._others_at = now + min(super().tick(), OTHERS_EACH_S)
        jobs_s = max(self._jobs.seconds_to_next(), TICK_S)
        return max(min(jobs_s, self._others_at - now, self._lease.seconds_left, LOOK_EACH_S), 0.0)

    def _follow_own_clock(self) -> None:
        entries = (self._schedule or {}).values()
        # Not `any`: each of them.
        if sum(entry.forget_run_to_come() for entry in entries):
            # Of the clock that was ahead are also the times at which they are looked at, and read again.
            self._heap, self._initial_read = None, True
            log.warning("beat.own_clock_set_back")
