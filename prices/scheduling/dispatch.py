"""Jobs that are due become messages to the workers of their provider."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

import structlog
from celery import Celery
from django.db import DatabaseError, InterfaceError, connection
from kombu.exceptions import OperationalError

from prices.jobs.services import POLL_TOGETHER_TASK
from prices.ledger.runs import skip_slots
from prices.maintenance.expired_messages import needless_after
from prices.outage_log import Outage
from prices.scheduling.due_heap import Due, GroupKey
from providers.rate_limits.redis_errors import redis_problem

log = structlog.get_logger(__name__)

JOBS_IN_A_MESSAGE = 100
# Jobs of longer intervals than this are sent again where Redis does not take their message.
SENT_AGAIN_ABOVE_MS = 10_000


@dataclass(frozen=True, slots=True)
class Message:
    """Jobs that one worker polls together, each with its key."""

    queue: str
    jobs: Mapping[str, GroupKey]

    @property
    def needless_after_s(self) -> float:
        """Return when nobody needs it any more: each job's next slot has a message of its own then."""
        return max(key.interval for key in self.jobs.values()) / 1000


class Sender:
    """Sends due jobs to their queues; keeps those for which Redis takes no message, or notes why not."""

    def __init__(self, app: Celery, outage: Outage, now_ms: Callable[[], int]) -> None:
        self._app = app
        self._outage = outage
        self._now_ms = now_ms
        self._kept: dict[str, GroupKey] = {}

    def send(self, due: Iterable[Due]) -> None:
        """Send these jobs, and those kept before; after a message that Redis does not take, none is tried."""
        jobs = self._kept | {job_id: each.key for each in due for job_id in each.job_ids}
        self._kept = {}
        problem: str | None = None
        for message in messages_of(jobs):
            # Each try takes most of a second, and beat has more to do.
            problem = problem or self._send(message)
            if problem is not None:
                self._keep_or_note(message, problem)

    def forget(self) -> None:
        """Keep nothing: another beat leads, and sends what is due."""
        self._kept = {}

    def _send(self, message: Message) -> str | None:
        """Send a message; return what keeps Redis from taking it."""
        try:
            self._app.send_task(
                POLL_TOGETHER_TASK,
                args=[list(message.jobs)],
                queue=message.queue,
                headers=needless_after(self._now_ms() / 1000 + message.needless_after_s),
            )
        except OperationalError as error:
            problem = f"Redis {redis_problem(error)}"
            self._outage.begin(problem)
            return problem
        self._outage.end()
        return None

    def _keep_or_note(self, message: Message, problem: str) -> None:
        # A slot that lasts is sent with the next ones; one that is over by then is noted as left out.
        over = [job_id for job_id, key in message.jobs.items() if key.interval <= SENT_AGAIN_ABOVE_MS]
        self._kept |= {job_id: key for job_id, key in message.jobs.items() if job_id not in over}
        try:
            skip_slots([UUID(job_id) for job_id in over], problem)
        except (DatabaseError, InterfaceError) as error:
            log.error("beat.not_noted", jobs=len(over), reason=str(error).partition("\n")[0])  # noqa: TRY400
            connection.close()


def messages_of(jobs: Mapping[str, GroupKey]) -> list[Message]:
    """Return the jobs as messages.

    A provider that answers for many symbols at once gets many jobs in one. One that is asked symbol by symbol
    gets the jobs of the same symbols together, and the others side by side: they would wait for each other.
    """
    together: dict[tuple[str, Hashable], list[str]] = {}
    for job_id, key in jobs.items():
        together.setdefault((key.queue, key.kind), []).append(job_id)
    return [
        Message(queue, {job_id: jobs[job_id] for job_id in some})
        for (queue, _kind), job_ids in together.items()
        for some in _chunks(job_ids)
    ]


def _chunks(job_ids: list[str]) -> Iterable[list[str]]:
    return (job_ids[start : start + JOBS_IN_A_MESSAGE] for start in range(0, len(job_ids), JOBS_IN_A_MESSAGE))
