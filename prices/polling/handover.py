"""Slots that go on at another provider, as messages to that provider's workers.

Nobody needs such a message once its claims are over (POLL_DEADLINE_S, by PostgreSQL's clock): a worker that
takes it later asks nobody, and where no worker takes it, it is dropped.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any
from uuid import UUID

import structlog
from celery import current_app
from django.conf import settings
from kombu.exceptions import OperationalError

from prices.clock import database_now
from prices.database.retry import retry_database
from prices.jobs.services import queue_of
from prices.ledger.runs import finish, reopen_claims
from prices.maintenance.expired_messages import needless_after
from prices.polling.merge import PendingRun, resolve_without_price
from prices.polling.poll import Polled, poll_runs
from providers.rate_limits.redis_errors import redis_problem

log = structlog.get_logger(__name__)

GO_ON_TASK = "prices.tasks.go_on_polling"

Message = dict[str, Any]


def hand_over(polled: Polled) -> None:
    """Send each run that goes on to its next provider's queue; where that fails, it ends here."""
    for provider, runs in polled.go_on.items():
        messages = [to_message(run) for run in runs]
        try:
            current_app.send_task(
                GO_ON_TASK,
                args=[provider, messages],
                queue=queue_of(provider),
                headers=needless_after(retry_database(_claims_are_over_at)),
            )
        except OperationalError as error:
            problem = f"Redis {redis_problem(error)}"
            log.error("poll.not_handed_over", provider=provider, slots=len(runs), reason=problem)  # noqa: TRY400
            end_here(runs, problem)


def _claims_are_over_at() -> float:
    """Return by when no claim of this moment can be gone on with, in s since the epoch."""
    return database_now().timestamp() + settings.POLL_DEADLINE_S


def take_over(provider: str, messages: Sequence[Mapping[str, Any]]) -> Polled:
    """Go on with runs at this provider; those that have ended meanwhile are left out.

    Those whose time is over end with what they have: the message waited too long, or PostgreSQL was away.
    """
    by_run = {UUID(message["run_id"]): message for message in messages}
    claims = {claim.run_id: claim for claim in reopen_claims(list(by_run))}
    runs = [
        PendingRun(
            claims[run_id],
            dict.fromkeys(message["symbols"]),
            **{name: message[name] for name in _TAKEN_ALONG},
        )
        for run_id, message in by_run.items()
        if run_id in claims
    ]
    now = time.monotonic()
    late = [run for run in runs if run.claim.deadline <= now]
    if late:
        end_here(late, f"no worker of {provider} took it in time")
    polled = Polled()
    in_time = [run for run in runs if run.claim.deadline > now]
    if in_time:
        poll_runs(provider, in_time, polled)
    return polled


def end_here(runs: Sequence[PendingRun], problem: str) -> None:
    """End the runs with what they have: nobody goes on with them, for this problem."""
    for run in runs:
        run.resolve_deferred()
        resolve_without_price(run, list(run.waiting), f"not asked: {problem}")
    retry_database(lambda: finish([run.outcome for run in runs]))


# What a run takes along; the claim is read again, and what it waits for goes as `symbols`.
_TAKEN_ALONG = tuple(
    each.name for each in fields(PendingRun) if each.name not in {"claim", "waiting", "deferred"}
)


def to_message(run: PendingRun) -> Message:
    """Return a run as JSON: what it still waits for, what was tried, and what it has."""
    symbols = [*run.waiting, *run.deferred]
    message: Message = {name: getattr(run, name) for name in _TAKEN_ALONG}
    return message | {
        "run_id": str(run.claim.run_id),
        "symbols": symbols,
        "missing": run.missing | run.deferred,
    }
